package embeddertest

import (
	"encoding/json"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"leat"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ leat.Embedder = (*Embedder)(nil)

func TestVector(t *testing.T) {
	dot := func(a, b string) (s float64) {
		va, vb := Vector(a, 256), Vector(b, 256)
		for i := range va {
			s += float64(va[i]) * float64(vb[i])
		}
		return s
	}
	for _, text := range []string{"", "one", "a longer text, with words", "資料庫的變更", "...", "mixed 中文 text"} {
		if l := dot(text, text); math.Abs(l-1) > 1e-5 {
			t.Errorf("%q has squared length %v", text, l)
		}
	}
	if same := dot("Red apples!", "apples, red"); same < 0.999 {
		t.Errorf("the same words: cosine %v", same)
	}
	if near, far := dot("the red apple is ripe", "a ripe red apple"), dot("the red apple is ripe", "binary log position"); near <= far+0.3 {
		t.Errorf("cosine %v for shared words, %v for none", near, far)
	}
	if near, far := dot("資料庫的變更", "變更資料"), dot("資料庫的變更", "咖啡機"); near <= far+0.3 {
		t.Errorf("cosine %v for shared characters, %v for none", near, far)
	}
}

func TestServer(t *testing.T) {
	s := Start(8)
	defer s.Close()
	defer http.DefaultClient.CloseIdleConnections()
	ask := func(body string) (int, Reply) {
		t.Helper()
		res, err := http.Post(s.BaseURL+"/embeddings", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var reply Reply
		if res.StatusCode == http.StatusOK {
			if err := json.NewDecoder(res.Body).Decode(&reply); err != nil {
				t.Fatal(err)
			}
		}
		return res.StatusCode, reply
	}
	code, reply := ask(`{"model":"m","input":["one","two words"]}`)
	if diff := cmp.Diff([]Datum{{0, Vector("one", 8)}, {1, Vector("two words", 8)}}, reply.Data); code != 200 || diff != "" {
		t.Error(code, diff)
	}
	if code, _ := ask(`{"input":[]}`); code != 400 {
		t.Errorf("no input: status %d", code)
	}
	s.Fail(Status(429, "3"), Change(func(r *Reply) { r.Data = nil }))
	if code, _ := ask(`{"input":["a"]}`); code != 429 {
		t.Errorf("status %d, want 429", code)
	}
	if code, reply := ask(`{"input":["a"]}`); code != 200 || len(reply.Data) != 0 {
		t.Errorf("status %d, %d vectors, want 200 and none", code, len(reply.Data))
	}
	s.Refuse("poison")
	if code, _ := ask(`{"input":["a","some poison"]}`); code != 400 {
		t.Errorf("refused: status %d", code)
	}
	if code, _ := ask(`{"input":["a"]}`); code != 200 {
		t.Errorf("status %d, want 200", code)
	}
	if s.Texts() != 7 || len(s.Requests()) != 5 {
		t.Errorf("%d texts in %d requests, want 7 in 5", s.Texts(), len(s.Requests()))
	}
}
