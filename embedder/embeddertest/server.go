package embeddertest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Server answers POST /v1/embeddings as OpenAI's does, with [Vector]. It
// listens on the loopback interface; a process beside the test can use it too.
type Server struct {
	// BaseURL is what a client is configured with: "http://127.0.0.1:PORT/v1".
	BaseURL string
	// Dimension of the vectors.
	Dimension int

	http     *httptest.Server
	mu       sync.Mutex
	faults   []Fault
	refuse   string
	requests []Request
}

// Request is what a client asked.
type Request struct {
	Model  string
	Input  []string
	Header http.Header
}

// Reply is what the server is about to answer.
type Reply struct {
	Data []Datum `json:"data"`
}

// Datum is one vector of a [Reply].
type Datum struct {
	Index     int       `json:"index"`
	Embedding []float32 `json:"embedding"`
}

// Fault answers one request in place of the server.
type Fault func(w http.ResponseWriter, r *http.Request, reply *Reply)

// Start starts a server. Close it.
func Start(dimension int) *Server {
	s := &Server{Dimension: dimension}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/embeddings", s.embeddings)
	s.http = httptest.NewServer(mux)
	s.BaseURL = s.http.URL + "/v1"
	return s
}

// Close ends the server, with requests that hang.
func (s *Server) Close() {
	s.http.CloseClientConnections()
	s.http.Close()
}

// Fail lets the next requests meet these faults, one each, in order.
func (s *Server) Fail(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, faults...)
}

// Refuse answers 400 to every request with a text that contains part, as
// servers do that refuse a batch for one of its texts. "" refuses none.
func (s *Server) Refuse(part string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = part
}

// Requests returns what was asked so far.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Texts is the number of texts asked for so far, faults included.
func (s *Server) Texts() int {
	n := 0
	for _, r := range s.Requests() {
		n += len(r.Input)
	}
	return n
}

func (s *Server) embeddings(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Model          string   `json:"model"`
		Input          []string `json:"input"`
		EncodingFormat string   `json:"encoding_format"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || len(in.Input) == 0 {
		http.Error(w, `{"error":{"message":"bad request"}}`, http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.requests = append(s.requests, Request{in.Model, in.Input, r.Header.Clone()})
	var fault Fault
	if len(s.faults) > 0 {
		fault, s.faults = s.faults[0], s.faults[1:]
	}
	refuse := s.refuse
	s.mu.Unlock()

	var reply Reply
	for i, t := range in.Input {
		if refuse != "" && strings.Contains(t, refuse) {
			http.Error(w, `{"error":{"message":"input is refused"}}`, http.StatusBadRequest)
			return
		}
		reply.Data = append(reply.Data, Datum{i, Vector(t, s.Dimension)})
	}
	if fault != nil {
		fault(w, r, &reply)
		return
	}
	reply.write(w)
}

func (r *Reply) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(r) // the client has gone: nobody to tell
}

// Status answers with a status and, unless it is "", a Retry-After.
func Status(code int, retryAfter string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ *Reply) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		http.Error(w, `{"error":{"message":"fault `+strconv.Itoa(code)+`"}}`, code)
	}
}

// Change answers with a reply that f has changed.
func Change(f func(*Reply)) Fault {
	return func(w http.ResponseWriter, _ *http.Request, reply *Reply) {
		f(reply)
		reply.write(w)
	}
}

// Raw answers 200 with this body.
func Raw(body string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ *Reply) {
		_, _ = io.WriteString(w, body)
	}
}

// Hang answers when the client has given up.
func Hang(_ http.ResponseWriter, r *http.Request, _ *Reply) { <-r.Context().Done() }

// Disconnect closes the connection without an answer.
func Disconnect(http.ResponseWriter, *http.Request, *Reply) { panic(http.ErrAbortHandler) }
