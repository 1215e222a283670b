package chunker

import (
	"strings"
	"testing"
)

// split cuts a text into its sentences, "|" between them.
func split(text string) string {
	var out []string
	for s := []byte(text); len(s) > 0; {
		n, _ := sentence(s, false, true)
		out = append(out, strings.TrimSpace(string(s[:n])))
		s = s[n:]
	}
	return strings.Join(out, "|")
}

func TestSentence(t *testing.T) {
	for _, tt := range []struct{ src, want string }{
		{"One here. Two there! Three? Four", "One here.|Two there!|Three?|Four"},
		{`He said "stop." Then he left.`, `He said "stop."|Then he left.`},
		{"(In brackets.) **Bold.** Next", "(In brackets.)|**Bold.**|Next"},
		{"Wait... what? Yes… No", "Wait... what?|Yes…|No"},
		{"Version 3.5 costs $2.50 at leat.example.com/a.b today. Next.", "Version 3.5 costs $2.50 at leat.example.com/a.b today.|Next."},
		{"Dr. Smith met Mr. J. Doe, e.g. at 5 p.m. on Oct. 3, i.e. later. He left at 5 p.m. They stayed.",
			"Dr. Smith met Mr. J. Doe, e.g. at 5 p.m. on Oct. 3, i.e. later.|He left at 5 p.m.|They stayed."},
		{"Acme Inc. bought Beta Ltd. in Jan. 2020. See Fig. 3 and pp. 4 et al. of it.", "Acme Inc. bought Beta Ltd. in Jan. 2020.|See Fig. 3 and pp. 4 et al. of it."},
		{"net of tax was $7 million as of 2017. other losses expire.", "net of tax was $7 million as of 2017.|other losses expire."},
		{"1. First item. 2) Second", "1. First item.|2) Second"},
		{"你好。世界！“真的吗？”他说：“是。”走了……然后；完", "你好。|世界！|“真的吗？”|他说：“是。”|走了……|然后；|完"},
		{"版本3.5发布了。价格是2.50元", "版本3.5发布了。|价格是2.50元"},
		{"结束.下一句!好?是", "结束.|下一句!|好?|是"},
		{"これは文です。次の文です。", "これは文です。|次の文です。"},
		{"यह है। अच्छा", "यह है।|अच्छा"},
		{"line one\nLine two\n\tthree\r\n\r\nfour\ffive\u2029six", "line one|Line two|three|four|five|six"},
		{"this line is wrapped by an editor at a column\nand goes on here. New.", "this line is wrapped by an editor at a column|and goes on here.|New."},
		{"  ", ""},
	} {
		if got := split(tt.src); got != tt.want {
			t.Errorf("%q:\n got %q\nwant %q", tt.src, got, tt.want)
		}
	}
}

// What follows a sentence decides how good a place it is to cut.
func TestGaps(t *testing.T) {
	for _, tt := range []struct {
		src  string
		rows bool
		want gap
	}{
		{"One. Two", false, gapSentence},
		{"One.\nTwo", false, gapLine},
		{"One.\n\nTwo", false, gapParagraph},
		{"One\n \r\nTwo", false, gapParagraph},
		{"An editor wrapped this line at its column so\nthat it goes on", false, gapClause},
		{"short line\nthat is a line", false, gapLine},
		{"a long line of a table without outer bars | 1\nb | 2", false, gapLine},
		{"x := 1\ny := 2", true, gapRow},
		{"x := 1\n\ny := 2", true, gapLine},
	} {
		if _, got := sentence([]byte(tt.src), tt.rows, true); got != tt.want {
			t.Errorf("%q: got %d, want %d", tt.src, got, tt.want)
		}
	}
}

func FuzzSentence(f *testing.F) {
	for _, s := range []string{"One. Two", "e.g. this", "你好。世界", "a\n\nb", "x. 1. \"Y.\" z", "…", ".", "\xff."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		whole, _ := sentence([]byte(s), false, true)
		if whole < 0 || whole > len(s) || whole == 0 && s != "" {
			t.Fatalf("%d of %d bytes", whole, len(s))
		}
		// With more text to come, the answer is the same or none yet.
		if early, _ := sentence([]byte(s), false, false); early != 0 && early != whole {
			t.Fatalf("%d bytes when more is to come, %d in all", early, whole)
		}
	})
}
