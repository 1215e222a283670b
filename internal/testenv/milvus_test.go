package testenv

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"
)

func TestMilvus(t *testing.T) {
	began := time.Now()
	m := Milvus(t, Own())
	t.Logf("up in %v", time.Since(began))
	other := Milvus(t, Flags("common.security.authorizationEnabled=true"))
	if _, err := milvusREST(other, "query", map[string]any{"collectionName": "t"}); err == nil {
		t.Error("flag not heeded: a call without a password is answered")
	}

	mustREST(t, m, "collections/create", map[string]any{"collectionName": "t", "dimension": 2, "primaryField": "id", "vectorField": "v"})
	mustREST(t, m, "insert", map[string]any{"collectionName": "t", "data": []map[string]any{
		{"v": []float32{0, 1}}, {"v": []float32{1, 0}},
	}})
	// It is up before it can answer for what was loaded.
	answers := func() (err error) {
		for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
			var rows []any
			if rows, err = milvusREST(m, "query", map[string]any{"collectionName": "t", "filter": "id > 0"}); len(rows) == 2 {
				return nil
			}
		}
		return fmt.Errorf("two rows are not found: %w", err)
	}
	if err := answers(); err != nil {
		t.Fatal(err)
	}
	addr := m.Addr()
	for how, stop := range map[string]func(testing.TB){"stop": m.Stop, "kill": m.Kill} {
		stop(t)
		if _, err := milvusREST(m, "query", map[string]any{"collectionName": "t", "filter": "id > 0"}); err == nil {
			t.Errorf("it answers after %s", how)
		}
		began := time.Now()
		m.Start(t)
		up := time.Since(began)
		if err := answers(); err != nil {
			t.Fatal(err)
		}
		t.Logf("up %v after %s, all there after %v", up, how, time.Since(began))
	}
	if m.Addr() != addr {
		t.Errorf("it moved from %s to %s", addr, m.Addr())
	}

	m.Pause(t)
	answered := make(chan error, 1)
	go func() { answered <- answers() }()
	select {
	case <-answered:
		t.Error("it answers while paused")
	case <-time.After(300 * time.Millisecond):
	}
	m.Resume(t)
	if err := <-answered; err != nil {
		t.Error(err)
	}

	// Another test gets this server where its environment names it.
	t.Setenv("LEAT_TEST_MILVUS", m.Addr())
	if same := Milvus(t); same.Addr() != m.Addr() {
		t.Error("LEAT_TEST_MILVUS is not heeded")
	}
}

func mustREST(t *testing.T, m *MilvusServer, call string, body any) {
	t.Helper()
	if _, err := milvusREST(m, call, body); err != nil {
		t.Fatal(err)
	}
}

// milvusREST calls the server's simple HTTP interface.
func milvusREST(m *MilvusServer, call string, body any) ([]any, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(http.MethodPost, "http://"+m.Addr()+"/v1/vector/"+call, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Close = true
	resp, err := (&http.Client{Timeout: 30 * time.Second}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Code    int
		Message string
		Data    json.RawMessage
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if answer.Code != http.StatusOK {
		return nil, fmt.Errorf("%s: %d %s", call, answer.Code, answer.Message)
	}
	var rows []any
	_ = json.Unmarshal(answer.Data, &rows) // of a call that has none
	return rows, nil
}
