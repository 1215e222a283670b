package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A change is searched for by words it alone has and by its meaning.
type change struct {
	name, what string
	make       func() error
	document   string
	words      string // a query that finds it by its words …
	meaning    string // … and one by its meaning; "": not searched for that way
	part       string // of the text that is found; "": any
	gone       string // a part that is found no more; with words and meaning "": the document itself
}

func (d *demo) changeRows(ctx context.Context) error {
	if d.database == nil {
		return nil
	}
	d.heading("Rows of a table, from COMMIT to searchable")
	exec := func(query string, args ...any) func() error {
		return func() error {
			_, err := d.shop.Exec(query, args...)
			return err
		}
	}
	const lantern = "A lantern for camping that stores sunlight by day and glows for thirty hours. Codename moonjar."
	const 灯笼 = "竹编的野营灯，白天晒太阳充电，晚上可以亮三十个小时。"
	for _, c := range []change{
		{
			name: "insert", what: "Solar camping lantern", document: productID(101),
			make:  exec("INSERT INTO products (id, name, description, price) VALUES (101, 'Solar camping lantern', ?, 29)", lantern),
			words: "moonjar", meaning: "light for the campsite without batteries", part: "moonjar",
		},
		{
			name: "insert", what: "太阳能野营灯", document: productID(102),
			make:  exec("INSERT INTO products (id, name, description, price) VALUES (102, '太阳能野营灯', ?, 168)", 灯笼),
			words: "竹编的野营灯", meaning: "不用电池的露营照明", part: "野营灯",
		},
		{
			name: "update", what: "a new description of the lantern", document: productID(101),
			make:  exec("UPDATE products SET description = 'Now made of recycled glass and called starbottle: hang it in the tent.' WHERE id = 101"),
			words: "starbottle", meaning: "glass lamp for the tent", part: "starbottle", gone: "moonjar",
		},
		{
			name: "delete", what: "太阳能野营灯", document: productID(102),
			make: exec("DELETE FROM products WHERE id = 102"), gone: "竹编的野营灯",
		},
		{
			name: "new key", what: "row 101 becomes row 201", document: productID(201),
			make:  exec("UPDATE products SET id = 201 WHERE id = 101"),
			words: "starbottle", meaning: "glass lamp for the tent", part: "starbottle",
		},
	} {
		if err := d.show(ctx, c); err != nil {
			return err
		}
	}
	d.rows++
	return nil
}

func (d *demo) changeFiles(ctx context.Context) error {
	d.heading(map[bool]string{
		false: "Files of a folder, from write to searchable",
		true:  "Objects of a bucket, from upload to searchable",
	}[d.Stack])
	const name = "shop/rainwater.md"
	write := func(text string) func() error {
		return func() error { return d.place.put(name, text) }
	}
	document := d.document(name)
	for _, c := range []change{
		{
			name: "drop", what: name, document: document,
			make:  write("# Rainwater\n\n## The barrel\n\nThe barrel behind the workshop holds two hundred litres. The tap is called gurglewick and sticks in frost.\n"),
			words: "gurglewick", meaning: "where do we collect water from the roof", part: "gurglewick",
		},
		{
			name: "change", what: name, document: document,
			make:  write("# Rainwater\n\n## The barrel\n\nThe barrel behind the workshop holds three hundred litres now. The new tap is called drizzlehook.\n"),
			words: "drizzlehook", meaning: "where do we collect water from the roof", part: "drizzlehook", gone: "gurglewick",
		},
		{
			name: "remove", what: name, document: document,
			make: func() error { return d.place.remove(name) }, gone: "drizzlehook",
		},
	} {
		if err := d.show(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// show makes a change and measures when searches see it.
func (d *demo) show(ctx context.Context, c change) error {
	if err := c.make(); err != nil {
		return fmt.Errorf("%s %s: %w", c.name, c.what, err)
	}
	began := time.Now()
	var said []string
	if c.words != "" {
		byWords, err := d.until(ctx, began, c.name+" is found by its words", func() (bool, error) {
			return d.text.finds(c.words, c.document, c.part)
		})
		if err != nil {
			return err
		}
		byMeaning, err := d.until(ctx, began, c.name+" is found by its meaning", func() (bool, error) {
			return d.meaning.finds(c.meaning, c.document, c.part)
		})
		if err != nil {
			return err
		}
		said = append(said, "found by words "+millis(byWords)+", by meaning "+millis(byMeaning))
	}
	if c.gone != "" {
		gone, err := d.until(ctx, began, c.name+" has gone from every search", func() (bool, error) {
			for _, s := range []*searcher{d.text, d.meaning} {
				if found, err := s.finds(c.gone, c.document, c.gone); found || err != nil {
					return false, err
				}
			}
			return true, nil
		})
		if err != nil {
			return err
		}
		what := "gone after "
		if c.words != "" {
			what = "old text gone "
		}
		said = append(said, what+millis(gone))
	}
	d.row(c.name, c.what, strings.Join(said, "; "))
	return nil
}

// askQuestions asks one question in each language whose answer is known.
func (d *demo) askQuestions(ctx context.Context) error {
	d.heading("A question in each language")
	for _, q := range []struct{ question, document, part string }{
		{"My kettle stops before the water is hot. What is wrong?", d.document("care/kettles.md"), "dry-boil"},
		{"雨伞被大风吹翻了怎么办？", d.document("care/雨伞.md"), "伞骨会自己翻回来"},
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		a, err := d.both.ask(q.question)
		if err != nil {
			return err
		}
		d.line("  %s  %s", d.bold("? "+q.question), d.dim(fmt.Sprintf("%.1f ms", a.TookMS)))
		right := false
		for i, h := range a.Hits {
			right = right || h.Document == q.document && strings.Contains(strings.Join(strings.Fields(h.Text), ""), strings.Join(strings.Fields(q.part), ""))
			if i >= 3 {
				continue
			}
			place := strings.Join(slices.Compact(append([]string{h.Title}, h.Location.Heading...)), " › ")
			d.line("  %d. %s %s", i+1, pad(cut(place, 60), 60), d.dim(fmt.Sprintf("%.3f", h.Score)))
			d.line("     %s", d.dim(fmt.Sprintf("%s, bytes %d to %d", h.Document, h.Location.Start, h.Location.End)))
			d.line("     %s", cut(h.Text, 96))
		}
		if !right {
			return fmt.Errorf("the answer to %q (%q in %s) is not among the first %d", q.question, q.part, q.document, len(a.Hits))
		}
	}
	return nil
}
