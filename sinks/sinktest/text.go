package sinktest

import (
	"slices"
	"testing"

	"leat"

	"github.com/google/go-cmp/cmp"
)

func runText(t *testing.T, open OpenText) {
	t.Run("Words", func(t *testing.T) { textWords(t, open(t, t.TempDir())) })
	t.Run("AnyQuery", func(t *testing.T) { textAnyQuery(t, open(t, t.TempDir())) })
	t.Run("Hits", func(t *testing.T) { textHits(t, open(t, t.TempDir())) })
	t.Run("Limit", func(t *testing.T) { textLimit(t, open(t, t.TempDir())) })
}

func textWords(t *testing.T, x leat.TextIndex) {
	in := index{Sink: x}
	in.apply(t, leat.Applied,
		revision("en", 1, "The quick brown fox jumps over the lazy dog."),
		revision("zh", 1, "台北捷運是服務大臺北都會區的大眾捷運系統。"),
		revision("hans", 1, "数据库的索引让查询更快，但写入变慢。"),
		revision("ja", 1, "東京タワーは電波塔です。"),
		revision("mixed", 1, "把MySQL 8.0的binlog打开"),
		revision("accents", 1, "Crème brûlée à la carte, naïve façade"),
		revision("cat", 1, "我家的貓很可愛"),
		titled(revision("titled", 1, "It costs 12.50 a piece."), "Stainless teapot"),
	)
	for query, document := range map[string]string{
		"brown foxes and a fox":      "en",
		"QUICK":                      "en",
		"捷運系統":                       "zh",
		"哪個系統服務大臺北":                  "zh",
		"索引怎么让查询变快":                  "hans",
		"タワー":                        "ja",
		"mysql":                      "mixed",
		"ＭｙＳＱＬ":                      "mixed", // full width
		"binlog":                     "mixed",
		"creme BRULEE":               "accents",
		"貓":                          "cat",
		"teapot":                     "titled",
		"price of a teapot":          "titled",
		"stainless \"steel\" kettle": "titled",
	} {
		matches, err := x.SearchText(t.Context(), query, 3)
		if err != nil {
			t.Fatalf("search for %q: %v", query, err)
		}
		if len(matches) == 0 || matches[0].Document != document {
			t.Errorf("a search for %q finds %+v, not %s first", query, matches, document)
		}
		for i, m := range matches {
			if m.Score <= 0 || i > 0 && m.Score > matches[i-1].Score {
				t.Errorf("a search for %q: scores are not above 0, or rise: %+v", query, matches)
			}
		}
	}
	for _, query := range []string{"", " ", "!?", "xylophone", "。", "火星"} {
		matches, err := x.SearchText(t.Context(), query, 3)
		if err != nil || len(matches) != 0 {
			t.Errorf("a search for %q finds %+v, %v", query, matches, err)
		}
	}
}

// odd are queries that mean something in one query language or another.
var odd = []string{
	`"`, `""`, `"unclosed`, `it's`, `a AND`, `AND`, `NOT x`, `OR OR`, `NEAR(a b)`, `title:x`, `body : (x`, `{a b}:x`, `^a`, `a*`, `*`,
	`(((`, `)`, `a + b`, `-a`, `col-umn:x`, `\`, `\"`, `a; DROP TABLE x`, `?1`, `:x`, `@x`, `$_words`, "nul\x00nul", "\xff\xfe", "a\u0301\u0301",
	`[1 TO 2]`, `/re.*/`, `~`, `x~2`, `x^2`, `&&`, `||`, `!x`, `<script>`, `%_`, "\u202e", "👩‍👩‍👧", "ｱｲｳ", "\ufdfa", "Ⅷ", "½", "ß", "İ",
}

func textAnyQuery(t *testing.T, x leat.TextIndex) {
	in := index{Sink: x}
	var long []byte
	for _, q := range odd {
		long = append(append(long, q...), ' ')
	}
	in.apply(t, leat.Applied, revision("d", 1, "some text with a title: x, body and NEAR"))
	for len(long) < 1<<20 {
		long = append(long, long...)
	}
	for _, q := range append(odd, string(long), string(long[:5000])) {
		if _, err := x.SearchText(t.Context(), q, 5); err != nil {
			t.Errorf("a search for %.50q (%d bytes): %v", q, len(q), err)
		}
	}
}

func textHits(t *testing.T, x leat.TextIndex) {
	in := index{Sink: x}
	one := titled(revision("d", 1, "alpha one", "beta one", "gamma one"), "Old title")
	in.apply(t, leat.Applied, one, revision("gone", 1, "delta"), revision("emptied", 1, "epsilon"))
	var matches []leat.Match
	for _, q := range []string{"alpha", "beta", "gamma", "delta", "epsilon"} {
		m, err := x.SearchText(t.Context(), q, 1)
		if err != nil || len(m) != 1 {
			t.Fatalf("a search for %q: %+v, %v", q, m, err)
		}
		matches = append(matches, m[0])
	}
	hit := func(r leat.Revision, i int, score float64) *leat.Hit {
		ch := r.Chunks[i]
		return &leat.Hit{Document: r.Document, Version: r.Version, Chunk: ch.ID, Score: score, Title: r.Title, Text: ch.Text,
			Location: leat.Location{Page: ch.Page, Heading: ch.Heading, Start: ch.Start, End: ch.End}, Metadata: r.Metadata}
	}
	check := func(want ...*leat.Hit) {
		t.Helper()
		got, err := x.Hits(t.Context(), matches)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	}
	check(hit(one, 0, matches[0].Score), hit(one, 1, matches[1].Score), hit(one, 2, matches[2].Score),
		hit(revision("gone", 1, "delta"), 0, matches[3].Score), hit(revision("emptied", 1, "epsilon"), 0, matches[4].Score))

	// The document changes between the search and the reading of its hits: an
	// unchanged chunk is found by its id wherever it stands now, another by its
	// place.
	two := titled(revision("d", 2, "a new one", "BETA ONE", "alpha one"), "New title")
	in.apply(t, leat.Applied, two, tombstone("gone", 2), revision("emptied", 2))
	check(hit(two, 2, matches[0].Score), hit(two, 1, matches[1].Score), hit(two, 2, matches[2].Score), nil, nil)
	if got, err := x.Hits(t.Context(), nil); err != nil || len(got) != 0 {
		t.Fatal(got, err)
	}
}

func textLimit(t *testing.T, x leat.TextIndex) {
	in := index{Sink: x}
	for i := range 20 {
		in.apply(t, leat.Applied, revision(string(rune('a'+i)), 1, "common words"))
	}
	// Of a version that waits for its last part nothing is found, however much
	// of it there is.
	in.apply(t, leat.Applied, parts(revision("z", 1, slices.Repeat([]string{"common words"}, 300)...), 299)[0])
	for _, limit := range []int{0, 1, 7, 20, 100} {
		m, err := x.SearchText(t.Context(), "common", limit)
		if err != nil || len(m) != min(limit, 20) {
			t.Fatalf("limit %d: %d matches, %v", limit, len(m), err)
		}
	}
}
