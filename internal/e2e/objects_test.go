package e2e

import (
	"bytes"
	"context"
	"crypto/md5"
	"fmt"
	"io"
	"net/url"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"leat/internal/testenv"
)

// objects changes the objects of a bucket that is a source.
type objects struct {
	t        *testing.T
	writer   writer
	name     string // of the source
	store    *testenv.ObjectStore
	endpoint string // where leat finds the store
	bucket   string
	have     []string
	serial   int
	changed  map[string]time.Time // by document id: just before the last change
}

func newObjects(t *testing.T, store *testenv.ObjectStore, endpoint, name string, w writer) *objects {
	return &objects{t: t, writer: w, name: name, store: store, endpoint: endpoint, bucket: store.Bucket(t, false), changed: map[string]time.Time{}}
}

func (o *objects) check(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
}

// step makes one change.
func (o *objects) step() {
	w := o.writer
	switch n := w.IntN(100); {
	case n < 55 || len(o.have) == 0:
		key := o.newKey()
		o.put(key, o.content(key))
		o.have = append(o.have, key)
	case n < 80:
		key := o.have[w.IntN(len(o.have))]
		o.put(key, o.content(key))
	default:
		i := w.IntN(len(o.have))
		o.remove(o.have[i])
		o.have = append(o.have[:i], o.have[i+1:]...)
	}
}

func (o *objects) newKey() string {
	o.serial++
	folders := []string{"", "guides/", "guides/short ones/", "手册/", "手册/第一章/", "100% #tags/", "a+b&c/"}
	stems := []string{"note", "a longer name, with a comma", "说明", "q&a+more", "what?"}
	exts := []string{".md", ".md", ".txt", ".html"}
	return fmt.Sprintf("%s%s %d%s", o.writer.pick(folders), o.writer.pick(stems), o.serial, o.writer.pick(exts))
}

func (o *objects) content(key string) []byte {
	w := o.writer
	switch path.Ext(key) {
	case ".md":
		return []byte(w.markdown(w.IntN(12)))
	case ".html":
		return []byte(w.html(1 + w.IntN(8)))
	}
	return []byte(w.paragraphs(1 + w.IntN(20)))
}

// id of an object's document.
func (o *objects) id(key string) string {
	var escaped []string
	for _, part := range strings.Split(key, "/") {
		escaped = append(escaped, url.PathEscape(part))
	}
	return "s3:" + o.name + "/" + strings.Join(escaped, "/")
}

func (o *objects) put(key string, data []byte) {
	o.changed[o.id(key)] = time.Now()
	_, err := o.store.Client().PutObject(context.Background(), o.bucket, key, bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{})
	o.check(err)
}

func (o *objects) remove(key string) {
	o.changed[o.id(key)] = time.Now()
	o.check(o.store.Client().RemoveObject(context.Background(), o.bucket, key, minio.RemoveObjectOptions{}))
}

// config is the source in pipeline.yaml. Without the notifications that a
// stopped server loses, the comparison with the index finds what has changed.
func (o *objects) config() string {
	return fmt.Sprintf(`
  - name: %s
    s3: {endpoint: %q, access_key: %s, secret_key: %s, bucket: %s, reconcile: 10s}
`, o.name, o.endpoint, o.store.AccessKey, o.store.SecretKey, o.bucket)
}

// expected reads the bucket as it is now.
func (o *objects) expected() map[string]expectedDocument {
	o.t.Helper()
	all, ctx := map[string]expectedDocument{}, context.Background()
	for info := range o.store.Client().ListObjects(ctx, o.bucket, minio.ListObjectsOptions{Recursive: true}) {
		o.check(info.Err)
		object, err := o.store.Client().GetObject(ctx, o.bucket, info.Key, minio.GetObjectOptions{})
		o.check(err)
		data, err := io.ReadAll(object)
		o.check(err)
		object.Close()
		ext := path.Ext(info.Key)
		all[o.id(info.Key)] = expectedDocument{text: string(data), ext: ext, converted: ext == ".html", tag: fmt.Sprintf("%x", md5.Sum(data))}
	}
	return all
}

// checkVersions checks that the version of each object says a time after its
// last change, or somewhat before: it is taken before the object is looked at.
func (o *objects) checkVersions(got map[string]*storedDocument) {
	o.t.Helper()
	for id, changed := range o.changed {
		d := got[id]
		if d == nil {
			continue // deleted before it was read
		}
		at := time.UnixMilli(int64(d.version & (1<<43 - 1) >> 1))
		if at.Before(changed.Add(-time.Minute)) || at.After(time.Now()) || d.version>>43 == 0 {
			o.t.Errorf("%s: version %d is of %v, its last change of %v", id, d.version, at, changed)
		}
	}
}
