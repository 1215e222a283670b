package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// indexes are both stores of a fleet, read with their own clients.
type indexes struct {
	elastic elasticIndex
	milvus  milvusIndex
}

func (x indexes) read(ctx context.Context) (text, vectors map[string]*storedDocument, orphans []string, err error) {
	text, orphans, err = x.elastic.documents()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("elasticsearch: %w", err)
	}
	vectors, more, err := x.milvus.documents(ctx)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("milvus: %w", err)
	}
	return text, vectors, append(orphans, more...), nil
}

// holds is nil if both hold a document at a place of the binlog or after it.
func (x indexes) holds(ctx context.Context, id string, place uint64) error {
	for store, version := range map[string]func(context.Context, string) (uint64, error){
		"elasticsearch": x.elastic.version, "milvus": x.milvus.version,
	} {
		v, err := version(ctx, id)
		if err == nil && v&(1<<52-1) < place { // below the epoch: file number and offset
			err = fmt.Errorf("it has version %d of %s", v, id)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", store, err)
		}
	}
	return nil
}

// advances waits until a change that is made now has reached both stores.
func (x indexes) advances(t *testing.T, limit time.Duration, shop *tables, source sync.Locker) {
	t.Helper()
	id, place := func() (string, uint64) {
		source.Lock()
		defer source.Unlock()
		key := shop.steady[shop.writer.IntN(len(shop.steady))]
		id := shop.productID(key)
		shop.change([]string{id}, do("UPDATE $.products SET description=?, stock=stock+1 WHERE id=?", shop.writer.paragraphs(1), key))
		return id, shop.changed[id].from
	}()
	until(t, limit, "a change reaches both stores", func() error { return x.holds(t.Context(), id, place) })
}

// awaitFirst waits until both stores hold something.
func (x indexes) awaitFirst(t *testing.T, limit time.Duration) {
	t.Helper()
	until(t, limit, "the first documents are in both stores", func() error {
		text, vectors, _, err := x.read(t.Context())
		if err == nil && (len(text) == 0 || len(vectors) == 0) {
			err = errors.New("nothing yet")
		}
		return err
	})
}
