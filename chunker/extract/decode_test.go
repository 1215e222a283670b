package extract_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"go.uber.org/goleak"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"
	"pgregory.net/rapid"

	"leat"
	"leat/chunker/extract"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func encode(t testing.TB, e encoding.Encoding, s string) string {
	t.Helper()
	out, err := e.NewEncoder().String(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func decode(r io.Reader, charset string) (string, error) {
	r, err := extract.Decode(r, charset)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(r)
	return string(b), err
}

func TestDecode(t *testing.T) {
	const s = "Grüße, 世界!"
	for _, tt := range []struct{ name, charset, in, want string }{
		{"utf-8", "", s, s},
		{"utf-8 with mark", "", "\ufeff" + s, s},
		{"utf-8 stated", "utf8", s, s},
		{"utf-16le", "", encode(t, unicode.UTF16(unicode.LittleEndian, unicode.UseBOM), s), s},
		{"utf-16be", "", encode(t, unicode.UTF16(unicode.BigEndian, unicode.UseBOM), s), s},
		{"utf-32le", "", encode(t, utf32.UTF32(utf32.LittleEndian, utf32.UseBOM), s), s},
		{"utf-32be", "", encode(t, utf32.UTF32(utf32.BigEndian, utf32.UseBOM), s), s},
		{"gb18030", "GB18030", encode(t, simplifiedchinese.GB18030, s), s},
		{"a mark beats the charset", "gb18030", "\ufeff" + s, s},
		{"big5", "big5", encode(t, traditionalchinese.Big5, "繁體中文"), "繁體中文"},
		{"shift_jis", "Shift_JIS", encode(t, japanese.ShiftJIS, "日本語"), "日本語"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(tt.in), iotest.OneByteReader(strings.NewReader(tt.in))} {
				if got, err := decode(r, tt.charset); got != tt.want || err != nil {
					t.Errorf("got %q, %v", got, err)
				}
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for _, tt := range []struct {
		name, charset, in string
		want              error
		says, hint        string
	}{
		{"latin-1", "", "caf\xe9 au lait", leat.ErrMalformed, "byte 0xE9 at offset 3", "iconv"},
		{"far in", "", long + "\xff", leat.ErrMalformed, "offset 100000", "iconv"},
		{"behind a mark", "", "\xef\xbb\xbfab\xff", leat.ErrMalformed, "offset 5", "iconv"},
		{"cut rune at the end", "", "ab\xe4\xb8", leat.ErrMalformed, "offset 2", "iconv"},
		{"surrogate", "", "\xed\xa0\x80", leat.ErrMalformed, "offset 0", "iconv"},
		{"binary", "", "ab\x00cd", leat.ErrUnsupported, "NUL byte at offset 2", "binary"},
		{"wrong charset", "gb18030", "ab\xff\xff", leat.ErrMalformed, "not gb18030 at offset 2", "iconv"},
		{"unknown charset", "utf9", "ab", leat.ErrMalformed, `charset "utf9"`, "gb18030"},
		{"odd utf-16", "", "\xff\xfea\x00b", leat.ErrMalformed, "utf-16le", "iconv"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := decode(strings.NewReader(tt.in), tt.charset)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(leat.HintOf(err), tt.hint) {
				t.Errorf("got %v, hint %q", err, leat.HintOf(err))
			}
			if !leat.IsPermanent(err) {
				t.Error("it would be tried again for ever")
			}
		})
	}
	broken := errors.New("connection lost")
	if _, err := decode(io.MultiReader(strings.NewReader("some text"), iotest.ErrReader(broken)), ""); !errors.Is(err, broken) || leat.IsPermanent(err) {
		t.Errorf("a reader's own error became %v", err)
	}
}

func TestLines(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		parts := rapid.SliceOf(rapid.SampledFrom([]string{"a", "世", "👍", "\n", "\r\n", strings.Repeat("x", 9000), strings.Repeat("世", 6000)})).Draw(rt, "parts")
		text := strings.Join(parts, "")
		read := func(r io.Reader) (pieces []string) {
			l := extract.NewLines(r)
			begins := true
			for {
				p, b, err := l.Next()
				if err == io.EOF {
					return pieces
				}
				if err != nil || b != begins || !utf8.ValidString(p) || len(p) > 16<<10 || p == "" {
					rt.Fatalf("piece %q, begins %v, error %v", p, b, err)
				}
				begins = strings.HasSuffix(p, "\n")
				pieces = append(pieces, p)
			}
		}
		whole := read(strings.NewReader(text))
		if strings.Join(whole, "") != text {
			rt.Fatal("the pieces are not the text")
		}
		if slow := read(iotest.HalfReader(strings.NewReader(text))); strings.Join(slow, "|") != strings.Join(whole, "|") {
			rt.Fatal("it is cut otherwise when it comes in smaller reads")
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("plain"), "")
	f.Add([]byte("\xff\xfea\x00"), "")
	f.Add([]byte("\xb0\xa1"), "gbk")
	f.Fuzz(func(t *testing.T, b []byte, charset string) {
		got, err := decode(strings.NewReader(string(b)), charset)
		if !utf8.ValidString(got) || strings.Contains(got, "\x00") {
			t.Fatalf("%q is not clean UTF-8", got)
		}
		if err != nil && !leat.IsPermanent(err) {
			t.Fatal(err)
		}
	})
}
