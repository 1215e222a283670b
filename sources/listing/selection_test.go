package listing

import "testing"

func TestSelection(t *testing.T) {
	for _, test := range []struct {
		include, exclude []string
		rel              string
		want             bool
	}{
		{nil, nil, "a.md", true},
		{nil, nil, "deep/er/a", true},
		{nil, nil, ".hidden", false},
		{nil, nil, ".git/config", false},
		{nil, nil, "deep/.x/y/a.md", false},
		{nil, nil, "a.md~", false},
		{nil, nil, ".a.md.swp", false},
		{nil, nil, "#a.md#", false},
		{nil, nil, "a.tmp", false},
		{nil, nil, "film.mkv.part", false},
		{nil, nil, "~$report.docx", false},
		{nil, nil, "deep/Thumbs.db", false},
		{nil, nil, "tmp", true},
		{nil, nil, "x.tmpl", true},
		{[]string{"*.md"}, nil, "deep/er/a.md", true},
		{[]string{"*.md"}, nil, "a.txt", false},
		{[]string{"*.{md,html}"}, nil, "a.html", true},
		{[]string{"handbook/**"}, nil, "handbook/a/b.txt", true},
		{[]string{"handbook/**"}, nil, "a.txt", false},
		{[]string{"handbook/**/*.md"}, nil, "handbook/a.md", true},
		{[]string{".*"}, nil, ".hidden", false},
		{nil, []string{"drafts"}, "drafts/a.md", false},
		{nil, []string{"drafts"}, "deep/drafts/a.md", false},
		{nil, []string{"drafts/"}, "drafts/a.md", false},
		{nil, []string{"/drafts"}, "drafts", true},
		{nil, []string{"deep/drafts"}, "deep/drafts/a.md", false},
		{nil, []string{"deep/drafts"}, "drafts/a.md", true},
		{nil, []string{"*.log"}, "a.log", false},
		{[]string{"*.md"}, []string{"README.md"}, "deep/README.md", false},
	} {
		if got := (Selection{Include: test.include, Exclude: test.exclude}).Selects(test.rel); got != test.want {
			t.Errorf("include %q, exclude %q: %s is %v", test.include, test.exclude, test.rel, got)
		}
	}
}
