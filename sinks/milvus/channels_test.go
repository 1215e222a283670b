package milvus

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/milvus-io/milvus/client/v2/entity"
	"github.com/milvus-io/milvus/client/v2/milvusclient"

	"leat/internal/testenv"
)

// TestSharedChannels makes collections until one has to share a channel with an
// index, which is told when that is opened next.
func TestSharedChannels(t *testing.T) {
	cfg := Config{Address: testenv.Milvus(t).Addr()}
	name := fmt.Sprintf("channels-%d", os.Getpid())
	open := func() (*Index, string) {
		t.Helper()
		var told strings.Builder
		x, err := Open(t.Context(), cfg, name, 1, testModel, slog.New(slog.NewTextHandler(&told, nil)))
		if err != nil {
			t.Fatal(err)
		}
		return x, told.String()
	}
	x, _ := open()
	defer x.Close()
	drop := func(collection string) {
		if err := x.db.client.DropCollection(context.Background(), milvusclient.NewDropCollectionOption(collection)); err != nil {
			t.Error(err)
		}
	}
	defer drop(x.names.documents)
	defer drop(x.names.chunks)
	const most = 256 // channels that a server may have
	for i := range most {
		other := fmt.Sprintf("other_%d_%d", os.Getpid(), i)
		schema := entity.NewSchema().WithName(other).
			WithField(entity.NewField().WithName("id").WithDataType(entity.FieldTypeInt64).WithIsPrimaryKey(true)).WithField(vectors(2))
		if err := x.db.client.CreateCollection(t.Context(), milvusclient.NewCreateCollectionOption(other, schema).WithShardNum(1)); err != nil {
			t.Fatal(err)
		}
		defer drop(other)
		c, err := x.db.describe(t.Context(), other)
		if err != nil {
			t.Fatal(err)
		}
		own, err := x.db.describe(t.Context(), x.names.chunks)
		if err != nil {
			t.Fatal(err)
		}
		if c.PhysicalChannels[0] != own.PhysicalChannels[0] {
			continue
		}
		again, told := open()
		defer again.Close()
		if pair := fmt.Sprintf("[%s %s]", x.names.chunks, other); !strings.Contains(told, "level=WARN") || !strings.Contains(told, pair) || !strings.Contains(told, "dmlChannelNum") {
			t.Errorf("the pair %s is not told: %s", pair, told)
		}
		return
	}
	t.Fatalf("none of %d collections shares a channel", most)
}
