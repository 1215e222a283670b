package e2e

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"leat/internal/testenv"
)

// folderSource is a folder source in pipeline.yaml.
func folderSource(name, dir string) string {
	return fmt.Sprintf("  - name: %s\n    folder: {path: %s}\n", name, dir)
}

// letter is a dead letter as `leat dlq list` prints it.
type letter struct{ Document, Stage, Reason, Hint string }

func (p *pipeline) letters() map[string]letter {
	p.t.Helper()
	all := map[string]letter{}
	for _, l := range jsonLines[letter](p, "", "dlq", "list") {
		all[l.Document] = l
	}
	return all
}

// TestBadFiles puts files that cannot be read, or only with trouble, beside
// one that can: each ends in the index or in deadletters with a reason and a
// hint (I5), and the good one is found.
func TestBadFiles(t *testing.T) {
	notes := t.TempDir()
	p := newPipeline(t, nullModel(t), folderSource("notes", notes))
	for name, content := range map[string]string{
		"good.md":     "# Umbrella\n\nA red umbrella.\n",
		"latin1.txt":  "na\xefve caf\xe9, which is not UTF-8\n",
		"empty.md":    "",
		"spaces.txt":  " \n\t\n  \n",
		"bom.txt":     "\xef\xbb\xbfA kettle after a byte order mark.\n",
		"image.png":   "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
		"zeros.txt":   strings.Repeat("\x00", 1000),
		"oneline.txt": strings.Repeat("teapot ", 20_000), // one line of 140 KB
		"broken.html": "<html><body><p>A tent <b>without <i>an end",
		"nested.html": strings.Repeat("<div>", 20_000) + "deep" + strings.Repeat("</div>", 20_000),
	} {
		if err := os.WriteFile(filepath.Join(notes, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, code := p.output("", "run", "--once"); code != 4 {
		t.Errorf("run --once: exit code %d, want 4: there are dead letters", code)
	}
	dead := p.letters()
	for _, name := range []string{"latin1.txt", "image.png", "zeros.txt"} {
		l, ok := dead["folder:notes/"+name]
		if !ok {
			t.Errorf("%s is not in deadletters", name)
		} else if l.Reason == "" || l.Hint == "" || l.Stage != "g1.chunker" {
			t.Errorf("%s: dead letter without reason, hint or stage: %+v", name, l)
		}
		delete(dead, "folder:notes/"+name)
	}
	delete(dead, "folder:notes/nested.html") // it may be refused: the depth is hostile
	for id, l := range dead {
		t.Errorf("%s is in deadletters: %s", id, l.Reason)
	}
	stored, err := readStore(p.store(), "text1")
	if err != nil {
		t.Fatal(err)
	}
	for name, found := range map[string]bool{"good.md": true, "bom.txt": true, "oneline.txt": true, "broken.html": true, "empty.md": false, "spaces.txt": false} {
		d := stored["folder:notes/"+name]
		switch {
		case d == nil || d.deleted:
			t.Errorf("%s is not in the index", name)
		case found != (len(d.chunks) > 0):
			t.Errorf("%s has %d chunks", name, len(d.chunks))
		}
	}

	// Mended, they are found, and their dead letters have ended.
	for _, name := range []string{"latin1.txt", "image.png", "zeros.txt", "nested.html"} {
		path := filepath.Join(notes, name)
		if name == "image.png" {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, []byte("mended\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// Nothing tells a stage that the image, which was never indexed, has gone: its
	// letter stays until it is retried.
	if _, code := p.output("", "run", "--once"); code != 4 {
		t.Errorf("run --once after mending: exit code %d", code)
	}
	if dead := p.letters(); len(dead) != 1 || dead["folder:notes/image.png"].Reason == "" {
		t.Errorf("dead letters after mending: %v", dead)
	}
	if _, code := p.output("", "dlq", "retry", "--all"); code != 0 {
		t.Errorf("dlq retry: exit code %d", code)
	}
	if _, code := p.output("", "run", "--once"); code != 0 {
		t.Errorf("run --once after the retry: exit code %d", code)
	}
	p.noDeadLetters()
}

// TestHugeFileInBoundedMemory has leat take up a text of 100 MB while its
// resident memory is watched (I8).
func TestHugeFileInBoundedMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("left out under -short: takes up a file of 100 MB")
	}
	const size, limit = 100 << 20, 350 << 20
	notes := t.TempDir()
	path := filepath.Join(notes, "huge.txt")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w, written := bufio.NewWriterSize(f, 1<<20), 0
	for i := 0; written < size; i++ {
		n, err := fmt.Fprintf(w, "Paragraph %d speaks of item %d: it is kept on shelf %d, weighs %d grams and was counted by hand.\n\n", i, i*7919%100_003, i%977, i*31%10_007)
		if err != nil {
			t.Fatal(err)
		}
		written += n
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	// Long chunks, so that the test takes less time; all of the text is read.
	p := newPipeline(t, nullModel(t)+"    max_tokens: 2100\nchunker: {target_tokens: 2000}\n", folderSource("notes", notes))
	if err := os.WriteFile(filepath.Join(notes, "small.md"), []byte("A small one beside it: gurglewick.\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	p.start()
	until(t, 20*time.Minute, "the huge file is in the index or in deadletters", func() error {
		p.alive()
		time.Sleep(time.Second)
		st := p.status()
		if l, dead := p.letters()["folder:notes/huge.txt"]; dead {
			if l.Reason == "" || l.Hint == "" {
				t.Errorf("dead letter without reason or hint: %+v", l)
			}
			t.Logf("refused: %s (%s)", l.Reason, l.Hint)
			return nil
		}
		if st.Index.Text.Documents < 2 || st.Index.Vectors.Documents < 2 {
			return fmt.Errorf("%d documents by words, %d by vectors", st.Index.Text.Documents, st.Index.Vectors.Documents)
		}
		t.Logf("indexed: %d chunks", st.Index.Text.Chunks)
		return nil
	})
	peak, err := peakMemory(p.process.PID())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MB of text after %v; resident memory at most %d MB", written>>20, time.Since(began).Round(time.Second), peak>>20)
	if peak > limit {
		t.Errorf("resident memory rose to %d MB, more than %d", peak>>20, limit>>20)
	}
	if out, _ := p.output("", "search", "--mode", "text", "gurglewick"); !strings.Contains(out, "small.md") {
		t.Errorf("the small file beside it is not found: %s", out)
	}
	p.stop()
}

// TestFilesVanishWhileRead removes and changes files as fast as they come:
// whatever was caught in the middle ends as the folder has it.
func TestFilesVanishWhileRead(t *testing.T) {
	notes := t.TempDir()
	p := newPipeline(t, nullModel(t), folderSource("notes", notes))
	p.start()
	path := func(i int) string { return filepath.Join(notes, fmt.Sprintf("%d.md", i)) }
	long := strings.Repeat("A sentence that takes a while to read and to cut. ", 4000)
	for i := range 120 {
		if err := os.WriteFile(path(i), []byte("# "+long), 0o644); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i%20) * time.Millisecond) // from unseen to half read
		var err error
		switch i % 3 {
		case 0:
			err = os.Remove(path(i))
		case 1:
			err = os.WriteFile(path(i), []byte(fmt.Sprintf("Short now: mark%d.\n", i)), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	f := &files{t: t, name: "notes", dir: notes}
	want := f.expected()
	until(t, 2*time.Minute, "the index equals the folder", func() error {
		got, err := readStore(p.store(), "text1")
		if err != nil {
			return err
		}
		return differences(compare(want, got, nil))
	})
	p.noDeadLetters()
	p.stop()
}

// TestServerGoesAwayAndComesBack stops the database under a running leat:
// files go on, status says what is wrong, and rows go on when it is back.
func TestServerGoesAwayAndComesBack(t *testing.T) {
	db := testenv.MySQL(t, testenv.Own())
	base := db.Database(t)
	db.Exec(t, "CREATE TABLE "+base+".t (id INT PRIMARY KEY, title VARCHAR(100), body TEXT); INSERT INTO "+base+".t VALUES (1, 'first', NULL), (2, NULL, 'second')")
	notes := t.TempDir()
	source := fmt.Sprintf("  - name: shop\n    mysql: {address: %s, user: root, tables: [{table: %s.t, title: title, body: [body]}]}\n", db.Addr(), base)
	p := newPipeline(t, nullModel(t), source, folderSource("notes", notes))
	id := func(n int) string { return fmt.Sprintf("mysql:shop/%s.t/%d", base, n) }
	holds := func(want map[string]int) func() error { // chunks, by document; -1: gone
		return func() error {
			p.alive()
			got, err := readStore(p.store(), "text1")
			if err != nil {
				return err
			}
			for doc, chunks := range want {
				d := got[doc]
				switch {
				case chunks < 0 && d != nil && !d.deleted:
					return fmt.Errorf("%s is still there", doc)
				case chunks >= 0 && (d == nil || d.deleted || len(d.chunks) != chunks):
					return fmt.Errorf("%s: %+v", doc, d)
				}
			}
			return nil
		}
	}
	p.start()
	until(t, time.Minute, "rows with NULLs are in the index", func() error {
		got, err := readStore(p.store(), "text1")
		if err == nil && (got[id(1)] == nil || got[id(1)].title != "first" || got[id(2)] == nil) {
			err = fmt.Errorf("%d documents", len(got))
		}
		return err
	})
	until(t, time.Minute, "the row with a body is searchable", holds(map[string]int{id(2): 1}))

	db.Kill(t)
	if err := os.WriteFile(filepath.Join(notes, "meanwhile.md"), []byte("Written meanwhile.\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	until(t, time.Minute, "files go on", holds(map[string]int{"folder:notes/meanwhile.md": 1}))
	until(t, time.Minute, "status says what is wrong", func() error {
		for _, s := range p.status().Sources {
			if s.Name == "mysql:shop" && s.State != "running" && s.Error != "" && s.Hint != "" {
				return nil
			}
		}
		return fmt.Errorf("%+v", p.status().Sources)
	})
	db.Start(t)
	db.Exec(t, "INSERT INTO "+base+".t VALUES (3, 'third', 'after it came back'); DELETE FROM "+base+".t WHERE id = 2")
	until(t, 2*time.Minute, "rows go on", holds(map[string]int{id(3): 1, id(2): -1}))

	db.Pause(t)
	time.Sleep(2 * time.Second)
	db.Resume(t)
	db.Exec(t, "INSERT INTO "+base+".t VALUES (4, 'fourth', 'after a pause')")
	until(t, 2*time.Minute, "rows go on after a pause", holds(map[string]int{id(4): 1}))
	p.noDeadLetters()
	p.stop()
}

// TestUnfitServers checks that `leat validate --connect` says what is wrong
// with a server, and that `leat run` does not take what it would get wrong.
func TestUnfitServers(t *testing.T) {
	type server struct {
		name   string
		start  func(testing.TB, ...testenv.Option) *testenv.DB // one with the flag
		flag   string
		user   string // "": one with all that leat needs
		grants []string
		table  string
		says   string // in the error
	}
	good := []string{"REPLICATION SLAVE, REPLICATION CLIENT ON *.*", "SELECT ON *.*"}
	plain := "(id INT PRIMARY KEY, title VARCHAR(100))"
	mysql := testenv.MySQL(t) // for those that need no flags
	for _, s := range []server{
		{name: "binlog off", start: testenv.MySQL, flag: "--skip-log-bin", grants: good, table: plain, says: "log_bin"},
		{name: "row image minimal", start: testenv.MySQL, flag: "--binlog-row-image=MINIMAL", grants: good, table: plain, says: "binlog_row_image"},
		{name: "statements", start: testenv.MySQL, flag: "--binlog-format=STATEMENT", grants: good, table: plain, says: "binlog_format"},
		{name: "no row metadata", start: testenv.MySQL, flag: "--binlog-row-metadata=MINIMAL", grants: good, table: plain, says: "binlog_row_metadata"},
		{name: "missing privilege", grants: good[1:], table: plain, says: "REPLICATION"},
		{name: "no select", grants: good[:1], table: plain, says: "SELECT"},
		{name: "wrong password", user: "nobody", table: plain, says: "nobody"},
		{name: "no primary key", grants: good, table: "(id INT, title VARCHAR(100))", says: "primary key"},
		{name: "MariaDB, binlog off", start: testenv.MariaDB, flag: "--skip-log-bin", grants: good, table: plain, says: "log_bin"},
		{name: "MariaDB, row image minimal", start: testenv.MariaDB, flag: "--binlog-row-image=MINIMAL", grants: good, table: plain, says: "binlog_row_image"},
	} {
		t.Run(s.name, func(t *testing.T) {
			db := mysql
			if s.start != nil {
				db = s.start(t, testenv.Flags(s.flag))
			}
			base := db.Database(t)
			db.Exec(t, "CREATE TABLE "+base+".t "+s.table+"; INSERT INTO "+base+".t VALUES (1, 'first')")
			user := s.user
			if user == "" {
				user = "leat"
				db.CreateUser(t, user, "secretword", s.grants...)
			}
			source := fmt.Sprintf("  - name: shop\n    mysql: {address: %s, user: %s, password: secretword, tables: [{table: %s.t, title: title}]}\n", db.Addr(), user, base)
			p := newPipeline(t, nullModel(t), source)
			out, code := p.output("", "validate", "--connect")
			if code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			if !strings.Contains(strings.ToLower(out), strings.ToLower(s.says)) || !strings.Contains(out, "hint: ") {
				t.Errorf("it does not speak of %q with a hint:\n%s", s.says, out)
			}
			if strings.Contains(out, "secretword") {
				t.Errorf("it shows the password:\n%s", out)
			}
			p.start()
			until(t, time.Minute, "status says the same", func() error {
				for _, src := range p.status().Sources {
					if src.Error != "" && src.Hint != "" {
						return nil
					}
				}
				return fmt.Errorf("%+v", p.status())
			})
			p.stop()
		})
	}
}
