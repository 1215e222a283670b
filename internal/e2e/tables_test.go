package e2e

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"leat/internal/testenv"
	"leat/internal/testenv/local"
)

// tables changes the rows of two tables of a database server and remembers
// between which places of its binlog the last change of each row stands.
type tables struct {
	t       *testing.T
	writer  writer
	db      *testenv.DB
	address string // where leat finds the server
	name    string // of the source
	base    string // the database

	most     int      // products, and articles, from which on they are deleted as often as inserted; 0: none
	products []uint64 // keys
	steady   []uint64 // of products that are never deleted
	articles [][2]string
	serial   int
	changed  map[string]window // by document id
	// snapshotted is a place of the binlog when the snapshots were over.
	snapshotted uint64
}

// window of the binlog, from before a transaction to after it.
type window struct{ from, to uint64 }

const createTables = `
CREATE TABLE products (
	id BIGINT UNSIGNED PRIMARY KEY, name VARCHAR(200) NOT NULL, description TEXT, notes TEXT,
	price DECIMAL(10,2), stock INT UNSIGNED NOT NULL, category ENUM('kitchen','garden','户外'), listed DATE);
CREATE TABLE articles (
	lang CHAR(2) NOT NULL, slug VARCHAR(80) NOT NULL, title VARCHAR(200), body MEDIUMTEXT NOT NULL, author VARCHAR(60),
	PRIMARY KEY (lang, slug))`

func newTables(t *testing.T, db *testenv.DB, name string, w writer) *tables {
	x := &tables{t: t, writer: w, db: db, address: db.Addr(), name: name, base: db.Database(t), changed: map[string]window{}}
	conn, err := local.Open(db.User, db.Password, db.Addr(), x.base)
	x.check(err)
	defer conn.Close()
	_, err = conn.Exec(createTables)
	x.check(err)
	return x
}

func (x *tables) check(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

// position is the end of the binlog: file number and offset in one number.
func (x *tables) position() (uint64, error) {
	query := "SHOW BINARY LOG STATUS"
	if x.db.Flavor == local.MariaDB {
		query = "SHOW BINLOG STATUS"
	}
	rows, err := x.db.Root().Query(query)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return 0, err
	}
	if !rows.Next() {
		return 0, fmt.Errorf("%s gives nothing: %w", query, rows.Err())
	}
	var file string
	var pos uint64
	into := []any{&file, &pos}
	for range columns[2:] {
		into = append(into, new(sql.RawBytes))
	}
	if err := rows.Scan(into...); err != nil {
		return 0, err
	}
	number, err := strconv.ParseUint(file[strings.LastIndexByte(file, '.')+1:], 10, 20)
	return number<<32 | pos, err
}

// change runs statements as one transaction that changes the documents.
func (x *tables) change(documents []string, statements ...statement) {
	x.t.Helper()
	from, err := x.position()
	x.check(err)
	tx, err := x.db.Root().Begin()
	x.check(err)
	for _, s := range statements {
		_, err := tx.Exec(strings.ReplaceAll(s.query, "$", x.base), s.args...)
		x.check(err)
	}
	x.check(tx.Commit())
	to, err := x.position()
	x.check(err)
	w := window{from, to}
	for _, id := range documents {
		x.changed[id] = w
	}
}

type statement struct {
	query string
	args  []any
}

func do(query string, args ...any) statement { return statement{query, args} }

func (x *tables) productID(key uint64) string {
	return fmt.Sprintf("mysql:%s/%s.products/%d", x.name, x.base, key)
}

func (x *tables) articleID(key [2]string) string {
	return fmt.Sprintf("mysql:%s/%s.articles/%s/%s", x.name, x.base, url.PathEscape(key[0]), url.PathEscape(key[1]))
}

// step makes one change: an insert, an update, a delete or a change of key.
func (x *tables) step() {
	if x.writer.IntN(3) > 0 {
		x.stepProducts()
	} else {
		x.stepArticles()
	}
}

// fill inserts n products and n articles, besides those that stay.
func (x *tables) fill(n int) {
	for range n {
		x.insertProduct()
		x.insertArticle()
	}
	for i := range 5 {
		key := uint64(1_000_000 + i)
		x.insertProductAs(key)
		x.steady = append(x.steady, key)
		x.change([]string{x.productID(key)}, do("UPDATE $.products SET description=? WHERE id=?", x.writer.paragraphs(2), key)) // never without text
	}
}

func (x *tables) stepProducts() {
	w := x.writer
	at := func() int { return w.IntN(len(x.products)) }
	switch n := x.chance(len(x.products)); {
	case n < 40 || len(x.products) < 3:
		x.insertProduct()
	case n < 45:
		key := x.steady[w.IntN(len(x.steady))]
		x.change([]string{x.productID(key)}, do("UPDATE $.products SET description=?, stock=stock+1 WHERE id=?", w.paragraphs(1+w.IntN(9)), key))
	case n < 60:
		key := x.products[at()]
		x.change([]string{x.productID(key)}, do("UPDATE $.products SET description=?, stock=stock+1 WHERE id=?", x.optional(w.paragraphs(1+w.IntN(6))), key))
	case n < 65: // of metadata alone
		key := x.products[at()]
		x.change([]string{x.productID(key)}, do("UPDATE $.products SET price=?, stock=stock+1 WHERE id=?", x.price(), key))
	case n < 72: // twice in a transaction
		key := x.products[at()]
		x.change([]string{x.productID(key)},
			do("UPDATE $.products SET name='in between', stock=stock+1 WHERE id=?", key),
			do("UPDATE $.products SET name=? WHERE id=?", w.title(), key))
	case n < 77: // many rows in a statement
		low := x.products[at()]
		var documents []string
		for _, key := range x.products {
			if key >= low && key < low+5 {
				documents = append(documents, x.productID(key))
			}
		}
		x.change(documents, do("UPDATE $.products SET notes=?, stock=stock+1 WHERE id >= ? AND id < ?", x.optional(w.paragraphs(1)), low, low+5))
	case n < 87:
		i, to := at(), x.nextKey()
		from := x.products[i]
		x.change([]string{x.productID(from), x.productID(to)}, do("UPDATE $.products SET id=? WHERE id=?", to, from))
		x.products[i] = to
	default:
		i := at()
		x.change([]string{x.productID(x.products[i])}, do("DELETE FROM $.products WHERE id=?", x.products[i]))
		x.products = append(x.products[:i], x.products[i+1:]...)
	}
}

// chance is which change is made: of those below 40, inserts, none where there
// are enough rows.
func (x *tables) chance(have int) int {
	n := x.writer.IntN(100)
	if n < 40 && x.most > 0 && have >= x.most {
		return 99
	}
	return n
}

// nextKey is mostly new, at times one that was deleted before.
func (x *tables) nextKey() uint64 {
	if x.serial > 10 && x.writer.IntN(5) == 0 {
		key := uint64(1 + x.writer.IntN(x.serial))
		if !slices.Contains(x.products, key) {
			return key
		}
	}
	x.serial++
	return uint64(x.serial)
}

func (x *tables) insertProduct() {
	key := x.nextKey()
	x.insertProductAs(key)
	x.products = append(x.products, key)
}

func (x *tables) insertProductAs(key uint64) {
	w := x.writer
	var category, listed any
	if w.IntN(4) > 0 {
		category = []string{"kitchen", "garden", "户外"}[w.IntN(3)]
		listed = fmt.Sprintf("20%02d-%02d-%02d", w.IntN(27), 1+w.IntN(12), 1+w.IntN(28))
	}
	x.change([]string{x.productID(key)}, do("INSERT INTO $.products VALUES (?,?,?,?,?,?,?,?)", key, w.title(),
		x.optional(w.paragraphs(1+w.IntN(4))), x.optional(w.sentence(true)), x.price(), w.IntN(1000), category, listed))
}

// optional is the text, NULL or "".
func (x *tables) optional(text string) any {
	switch x.writer.IntN(10) {
	case 0:
		return nil
	case 1:
		return ""
	}
	return text
}

func (x *tables) price() any {
	if x.writer.IntN(8) == 0 {
		return nil
	}
	return fmt.Sprintf("%d.%02d", x.writer.IntN(10000), x.writer.IntN(100))
}

func (x *tables) stepArticles() {
	w := x.writer
	at := func() int { return w.IntN(len(x.articles)) }
	const where = " WHERE lang=? AND slug=?"
	switch n := x.chance(len(x.articles)); {
	case n < 40 || len(x.articles) < 3:
		x.insertArticle()
	case n < 70: // an edit in the middle
		key := x.articles[at()]
		var body string
		x.check(x.db.Root().QueryRow(strings.ReplaceAll("SELECT body FROM $.articles"+where, "$", x.base), key[0], key[1]).Scan(&body))
		x.change([]string{x.articleID(key)}, do("UPDATE $.articles SET body=?"+where, w.edited(body), key[0], key[1]))
	case n < 75: // delete and insert of one key in a transaction
		key := x.articles[at()]
		x.change([]string{x.articleID(key)},
			do("DELETE FROM $.articles"+where, key[0], key[1]),
			do("INSERT INTO $.articles VALUES (?,?,?,?,?)", key[0], key[1], w.title(), w.markdown(3), nil))
	case n < 85:
		i, to := at(), x.newSlug()
		from := x.articles[i]
		x.change([]string{x.articleID(from), x.articleID(to)},
			do("UPDATE $.articles SET lang=?, slug=?"+where, to[0], to[1], from[0], from[1]))
		x.articles[i] = to
	default:
		i := at()
		key := x.articles[i]
		x.change([]string{x.articleID(key)}, do("DELETE FROM $.articles"+where, key[0], key[1]))
		x.articles = append(x.articles[:i], x.articles[i+1:]...)
	}
}

func (x *tables) newSlug() [2]string {
	x.serial++
	w := x.writer
	return [2]string{w.pick([]string{"en", "zh"}), fmt.Sprintf("%s-%d", w.pick([]string{"how to", "a/b", "怎么用", "50%", "x?y#z"}), x.serial)}
}

func (x *tables) insertArticle() {
	w, key := x.writer, x.newSlug()
	x.change([]string{x.articleID(key)}, do("INSERT INTO $.articles VALUES (?,?,?,?,?)",
		key[0], key[1], x.optional(w.title()), w.markdown(w.IntN(10)), x.optional("Wei & Ann")))
	x.articles = append(x.articles, key)
}

// config is the source in pipeline.yaml.
func (x *tables) config() string {
	return fmt.Sprintf(`
  - name: %s
    mysql:
      address: %s
      user: %s
      tables:
        - {table: %[4]s.products, title: name, body: [description, notes], metadata: [price, stock, category, listed]}
        - {table: %[4]s.articles, title: title, body: [body], metadata: [author], media_type: text/markdown}
`, x.name, x.address, x.db.User, x.base)
}

// awaitSnapshot waits, changing rows, until leat says that it streams and has
// saved a position since: from then on no start reads a snapshot again.
func (x *tables) awaitSnapshot(p *pipeline) {
	x.t.Helper()
	var streams time.Time
	until(x.t, 2*time.Minute, "the snapshot of "+x.name+" is over", func() error {
		p.alive()
		x.step()
		for _, s := range p.status().Sources {
			switch {
			case s.Name != "mysql:"+x.name:
			case s.Progress.Phase != "streaming":
				return fmt.Errorf("%+v", s)
			case streams.IsZero():
				streams = time.Now()
			case s.Saved.After(streams):
				return nil
			}
		}
		return errors.New("no position was saved")
	})
	var err error
	x.snapshotted, err = x.position()
	x.check(err)
}

// expected reads both tables as they are now. How columns become a document is
// written out here once more, apart from the source's own code.
func (x *tables) expected() map[string]expectedDocument {
	all := map[string]expectedDocument{}
	rows, err := x.db.Root().Query(strings.ReplaceAll("SELECT id, name, description, notes, CAST(price AS CHAR), stock, category, CAST(listed AS CHAR) FROM $.products", "$", x.base))
	x.check(err)
	defer rows.Close()
	for rows.Next() {
		var id, stock uint64
		var name string
		var description, notes, price, category, listed sql.NullString
		x.check(rows.Scan(&id, &name, &description, &notes, &price, &stock, &category, &listed))
		all[x.productID(id)] = expectedDocument{
			title: name, text: joined(description.String, notes.String), ext: ".txt", window: x.changed[x.productID(id)],
			metadata: map[string]any{"price": value(price), "stock": stock, "category": value(category), "listed": value(listed)},
		}
	}
	x.check(rows.Err())
	rows, err = x.db.Root().Query(strings.ReplaceAll("SELECT lang, slug, title, body, author FROM $.articles", "$", x.base))
	x.check(err)
	defer rows.Close()
	for rows.Next() {
		var key [2]string
		var title, author sql.NullString
		var body string
		x.check(rows.Scan(&key[0], &key[1], &title, &body, &author))
		all[x.articleID(key)] = expectedDocument{
			title: title.String, text: body, ext: ".md", window: x.changed[x.articleID(key)],
			metadata: map[string]any{"author": value(author)},
		}
	}
	x.check(rows.Err())
	return all
}

func value(s sql.NullString) any {
	if !s.Valid {
		return nil
	}
	return s.String
}

func joined(parts ...string) string {
	var filled []string
	for _, p := range parts {
		if p != "" {
			filled = append(filled, p)
		}
	}
	return strings.Join(filled, "\n\n")
}
