package testenv

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestElasticsearch(t *testing.T) {
	began := time.Now()
	es := Elasticsearch(t, Own())
	t.Logf("up in %v", time.Since(began))
	call := func(e *Elasticsearch8, user, method, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, e.URL()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if user != "" {
			req.SetBasicAuth(user, e.Password)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	if status, body := call(es, "", "PUT", "/books/_doc/1", `{"title": "one"}`); status != http.StatusCreated {
		t.Fatal(status, body)
	}
	var tokens struct{ Tokens []struct{ Token string } }
	status, body := call(es, "", "POST", "/_analyze", `{"analyzer": "smartcn", "text": "数据库的索引"}`)
	if err := json.Unmarshal([]byte(body), &tokens); status != http.StatusOK || err != nil || len(tokens.Tokens) == 0 || tokens.Tokens[0].Token != "数据库" {
		t.Errorf("smartcn: %d %s", status, body)
	}
	es.Kill(t)
	if status, _ := call(es, "", "GET", "/", ""); status != 0 {
		t.Error("it answers after kill")
	}
	es.Start(t)
	if status, body := call(es, "", "GET", "/books/_doc/1", ""); status != http.StatusOK {
		t.Errorf("after kill and start: %d %s", status, body)
	}

	// Another one beside it, with passwords.
	secured := Elasticsearch(t, Flags("xpack.security.enabled=true", "cluster.name=other"))
	if status, _ := call(secured, "", "GET", "/", ""); status != http.StatusUnauthorized {
		t.Errorf("without a password: %d", status)
	}
	if status, body := call(secured, secured.User, "GET", "/", ""); status != http.StatusOK || !strings.Contains(body, `"cluster_name" : "other"`) {
		t.Errorf("with the password: %d %s", status, body)
	}

	t.Setenv("LEAT_TEST_ELASTICSEARCH", "http://me:secret@"+es.Addr())
	same := Elasticsearch(t)
	if same.URL() != es.URL() || same.User != "me" || same.Password != "secret" {
		t.Errorf("LEAT_TEST_ELASTICSEARCH is not heeded: %+v", same)
	}
}
