package e2e

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/milvus-io/milvus/client/v2/entity"
	"github.com/milvus-io/milvus/client/v2/milvusclient"
)

// damager damages an index behind leat's back, by the store's own client.
type damager interface {
	// deleteChunk deletes the last chunk of a document.
	deleteChunk(ctx context.Context, id string) error
	// alterChunk gives the first chunk of a document the content of another one's.
	alterChunk(ctx context.Context, id, other string) error
	// addChunk adds a chunk to those of a document.
	addChunk(ctx context.Context, id string) error
	// addStray adds a chunk of a document that is not there and returns what its
	// name contains.
	addStray(ctx context.Context) (string, error)
	// deleteDocument deletes all that is there of a document.
	deleteDocument(ctx context.Context, id string) error
}

// sqliteIndex is an index of the embedded store, such as "text1".
type sqliteIndex struct{ path, name string }

func (x sqliteIndex) exec(ctx context.Context, query string, args ...any) error {
	db, err := sql.Open("sqlite", "file:"+x.path+"?_pragma=busy_timeout(30000)")
	if err != nil {
		return err
	}
	defer db.Close()
	result, err := db.ExecContext(ctx, strings.ReplaceAll(query, "$", x.name), args...)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, fmt.Errorf("nothing was changed by %s", query))
	}
	return nil
}

// chunksOf are the searchable chunks k of document ?1.
const chunksOf = "$_chunks AS k WHERE (k.doc, k.version) = (SELECT no, version FROM $_documents WHERE id = ?1)"

func (x sqliteIndex) deleteChunk(ctx context.Context, id string) error {
	return x.exec(ctx, "DELETE FROM "+chunksOf+" AND ordinal = (SELECT MAX(ordinal) FROM "+chunksOf+")", id)
}

func (x sqliteIndex) alterChunk(ctx context.Context, id, other string) error {
	const first = " AND ordinal = 0"
	return x.exec(ctx, "UPDATE $_contents SET data = (SELECT data FROM $_contents WHERE no = (SELECT content FROM "+
		strings.ReplaceAll(chunksOf, "?1", "?2")+first+")) WHERE no = (SELECT content FROM "+chunksOf+first+")", id, other)
}

func (x sqliteIndex) addChunk(ctx context.Context, id string) error {
	return x.exec(ctx, "INSERT INTO $_chunks SELECT doc, version, part, ordinal+1, content, start, stop, tokens, page, heading FROM "+
		chunksOf+" ORDER BY ordinal DESC LIMIT 1", id)
}

func (x sqliteIndex) addStray(ctx context.Context) (string, error) {
	return x.name + "_chunks 987654321/", x.exec(ctx,
		"INSERT INTO $_chunks SELECT 987654321, version, part, ordinal, content, start, stop, tokens, page, heading FROM $_chunks LIMIT 1")
}

func (x sqliteIndex) deleteDocument(ctx context.Context, id string) error {
	return errors.Join(
		x.exec(ctx, "DELETE FROM $_contents WHERE doc = (SELECT no FROM $_documents WHERE id = ?1)", id),
		x.exec(ctx, "DELETE FROM $_chunks WHERE doc = (SELECT no FROM $_documents WHERE id = ?1)", id),
		x.exec(ctx, "DELETE FROM $_documents WHERE id = ?1", id))
}

// chunks lists the ids of a document's chunks by ordinal, and that of its state.
func (x elasticIndex) chunks(id string) (chunks []string, state string, err error) {
	entries, err := x.entries()
	if err != nil {
		return nil, "", err
	}
	for key, e := range entries {
		if e.Document == id && !strings.Contains(key, ".") {
			state = key
		}
	}
	for key, e := range entries {
		if hash, rest, _ := strings.Cut(key, "."); hash == state && strings.Contains(rest, ".") && e.Version == entries[state].Version {
			chunks = append(chunks, key)
		}
	}
	slices.SortFunc(chunks, func(a, b string) int { return entries[a].Place.Ordinal - entries[b].Place.Ordinal })
	if len(chunks) == 0 {
		err = fmt.Errorf("elasticsearch: no chunks of %s", id)
	}
	return chunks, state, err
}

// at is the path of an entry; all of a document lies in one shard.
func (x elasticIndex) at(key string) string {
	hash, _, _ := strings.Cut(key, ".")
	return fmt.Sprintf("/%s/_doc/%s?routing=%s&refresh=true", x.name, key, hash)
}

func (x elasticIndex) get(key string) (map[string]any, error) {
	var found struct {
		Source map[string]any `json:"_source"`
	}
	return found.Source, x.call(http.MethodGet, x.at(key), nil, &found)
}

func (x elasticIndex) put(key string, source map[string]any) error {
	var ignored any
	return x.call(http.MethodPut, x.at(key), source, &ignored)
}

func (x elasticIndex) remove(keys ...string) error {
	var errs []error
	for _, key := range keys {
		var ignored any
		errs = append(errs, x.call(http.MethodDelete, x.at(key), nil, &ignored))
	}
	return errors.Join(errs...)
}

func (x elasticIndex) deleteChunk(_ context.Context, id string) error {
	chunks, _, err := x.chunks(id)
	if err != nil {
		return err
	}
	return x.remove(chunks[len(chunks)-1])
}

func (x elasticIndex) alterChunk(_ context.Context, id, other string) error {
	chunks, _, err := x.chunks(id)
	if err != nil {
		return err
	}
	others, _, err := x.chunks(other)
	if err != nil {
		return err
	}
	source, err := x.get(chunks[0])
	if err != nil {
		return err
	}
	from, err := x.get(others[0])
	if err != nil {
		return err
	}
	for _, field := range []string{"text", "han"} {
		delete(source, field)
		if v, ok := from[field]; ok {
			source[field] = v
		}
	}
	return x.put(chunks[0], source)
}

// copied puts a document's last chunk under another id, with the next ordinal.
func (x elasticIndex) copied(id string, as func(key string, ordinal int) string) (string, error) {
	chunks, _, err := x.chunks(id)
	if err != nil {
		return "", err
	}
	last := chunks[len(chunks)-1]
	source, err := x.get(last)
	if err != nil {
		return "", err
	}
	place, ok := source["place"].(map[string]any)
	if !ok {
		return "", fmt.Errorf("elasticsearch: %s has no place", last)
	}
	place["ordinal"] = len(chunks)
	place["written"] = time.Now().Add(-time.Hour).Unix() // not under way any more
	key := as(last, len(chunks))
	return key, x.put(key, source)
}

func (x elasticIndex) addChunk(_ context.Context, id string) error {
	_, err := x.copied(id, func(key string, ordinal int) string {
		return fmt.Sprintf("%s.%d", key[:strings.LastIndexByte(key, '.')], ordinal)
	})
	return err
}

func (x elasticIndex) addStray(context.Context) (string, error) {
	entries, err := x.entries()
	if err != nil {
		return "", err
	}
	for key, e := range entries {
		if !strings.Contains(key, ".") && e.Chunks > 0 {
			return x.copied(e.Document, func(last string, _ int) string {
				return strings.Repeat("x", len(key)) + last[len(key):]
			})
		}
	}
	return "", errors.New("elasticsearch: no document has a chunk")
}

func (x elasticIndex) deleteDocument(_ context.Context, id string) error {
	chunks, state, err := x.chunks(id)
	if err != nil {
		return err
	}
	return x.remove(append(chunks, state)...)
}

// do calls f with a client of the server.
func (x milvusIndex) do(ctx context.Context, f func(*milvusclient.Client) error) error {
	c, err := milvusclient.New(ctx, &milvusclient.ClientConfig{Address: x.address})
	if err != nil {
		return err
	}
	return errors.Join(f(c), c.Close(context.WithoutCancel(ctx)))
}

// chunks gives the rows of a document's chunks by ordinal; those of all, in any
// order, where id is "".
func (x milvusIndex) chunks(ctx context.Context, id string) (rows []map[string]any, err error) {
	err = x.do(ctx, func(c *milvusclient.Client) error {
		opt := milvusclient.NewQueryOption(x.collection()).WithOutputFields("*").WithConsistencyLevel(entity.ClStrong).WithLimit(1000)
		if id != "" {
			opt = opt.WithFilter(fmt.Sprintf("document == %q", id))
		}
		page, err := c.Query(ctx, opt)
		if err != nil {
			return err
		}
		for i := range page.ResultCount {
			row := map[string]any{}
			for _, column := range page.Fields {
				if row[column.Name()], err = column.Get(i); err != nil {
					return err
				}
			}
			rows = append(rows, row)
		}
		return nil
	})
	slices.SortFunc(rows, func(a, b map[string]any) int { return int(a["ordinal"].(int64) - b["ordinal"].(int64)) })
	if err == nil && len(rows) == 0 {
		err = fmt.Errorf("milvus: no chunks of %q", id)
	}
	return rows, err
}

func (x milvusIndex) upsert(ctx context.Context, row map[string]any) error {
	return x.do(ctx, func(c *milvusclient.Client) error {
		_, err := c.Upsert(ctx, milvusclient.NewRowBasedInsertOption(x.collection(), row))
		return err
	})
}

func (x milvusIndex) remove(ctx context.Context, collection, filter string) error {
	return x.do(ctx, func(c *milvusclient.Client) error {
		_, err := c.Delete(ctx, milvusclient.NewDeleteOption(collection).WithExpr(filter))
		return err
	})
}

func (x milvusIndex) deleteChunk(ctx context.Context, id string) error {
	rows, err := x.chunks(ctx, id)
	if err != nil {
		return err
	}
	return x.remove(ctx, x.collection(), fmt.Sprintf("id == %q", rows[len(rows)-1]["id"]))
}

func (x milvusIndex) alterChunk(ctx context.Context, id, other string) error {
	rows, err := x.chunks(ctx, id)
	if err != nil {
		return err
	}
	from, err := x.chunks(ctx, other)
	if err != nil {
		return err
	}
	rows[0]["vector"] = from[0]["vector"]
	return x.upsert(ctx, rows[0])
}

// Chunks have keys DOCUMENT/VERSION/ORDINAL, the last in eight digits.
func (x milvusIndex) addChunk(ctx context.Context, id string) error {
	rows, err := x.chunks(ctx, id)
	if err != nil {
		return err
	}
	row := rows[len(rows)-1]
	key := row["id"].(string)
	row["id"], row["ordinal"] = fmt.Sprintf("%s%08x", key[:len(key)-8], len(rows)), int64(len(rows))
	return x.upsert(ctx, row)
}

func (x milvusIndex) addStray(ctx context.Context) (string, error) {
	rows, err := x.chunks(ctx, "")
	if err != nil {
		return "", err
	}
	row := rows[0]
	name, rest, _ := strings.Cut(row["id"].(string), "/")
	name = strings.Repeat("x", len(name)) + "/"
	row["id"], row["document"], row["hash"] = name+rest, "mysql:shop/nowhere/1", int64(7)
	return name, x.upsert(ctx, row)
}

func (x milvusIndex) deleteDocument(ctx context.Context, id string) error {
	return errors.Join(
		x.remove(ctx, x.collection(), fmt.Sprintf("document == %q", id)),
		x.remove(ctx, x.collection()+"_documents", fmt.Sprintf(`id > "%s " && id < "%[1]s!"`, id)))
}
