package extract_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"leat"
	"leat/chunker/extract"
)

// formats that do nothing but say what they were chosen as.
var formats = extract.Registry{
	{MediaType: "application/pdf", Extensions: []string{".pdf"}, Extract: empty},
	{MediaType: "text/markdown", Extensions: []string{".md"}, Textual: true, Extract: empty},
	{MediaType: "text/html", Extensions: []string{".html"}, Textual: true, Extract: empty},
	{MediaType: "text/plain", Aliases: []string{"text/*", "application/json"}, Extensions: []string{".txt"}, Textual: true, Extract: empty},
}

func empty(context.Context, io.Reader, extract.Options) (extract.Content, error) {
	return extract.Content{}, nil
}

func TestDetect(t *testing.T) {
	const pdf = "%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n"
	for _, tt := range []struct{ name, stated, file, body, want string }{
		{"stated", "text/markdown", "x.txt", "hello", "text/markdown"},
		{"stated with charset", "text/html; charset=utf-8", "", "hello", "text/html"},
		{"stated kind of text", "text/x-rst", "", "hello", "text/plain"},
		{"no statement", "application/octet-stream", "a/b.MD", "hello", "text/markdown"},
		{"by name", "", "dir.d/notes.md", "hello", "text/markdown"},
		{"by content", "", "", "<!DOCTYPE html><p>hello", "text/html"},
		{"prose", "", "", "Hello there.", "text/plain"},
		{"prose that begins like a bitmap", "", "", "BMW builds cars.", "text/plain"},
		{"prose of unknown extension", "", "notes.xyz", "Hello there.", "text/plain"},
		{"json", "", "", `{"a": 1}`, "text/plain"},
		{"csv", "", "", "a,b\n1,2\n3,4\n", "text/plain"},
		{"empty", "", "", "", "text/plain"},
		{"utf-16", "", "", "\xff\xfeh\x00i\x00", "text/plain"},
		{"a cut rune where detection ends", "", "", strings.Repeat("a", 4095) + "世", "text/plain"},
		{"binary by content", "", "", pdf, "application/pdf"},
		{"binary whatever it is called", "text/plain", "x.txt", pdf, "application/pdf"},
		{"not UTF-8, to be refused as a text", "", "", "caf\xe9 au lait", "text/plain"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := formats.Open(t.Context(), tt.stated, tt.file, strings.NewReader(tt.body))
			if err != nil || c.MediaType != tt.want {
				t.Errorf("got %q, %v", c.MediaType, err)
			}
		})
	}
}

func TestDetectRefuses(t *testing.T) {
	for _, tt := range []struct{ name, stated, body, says string }{
		{"picture", "", "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "image/png"},
		{"stated picture", "image/png", "hello", "image/png"},
		{"binary", "", "\x00\x01\x02\x03", "application/octet-stream"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := formats.Open(t.Context(), tt.stated, "", strings.NewReader(tt.body))
			if !errors.Is(err, leat.ErrUnsupported) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v", err)
			}
			if h := leat.HintOf(err); !strings.Contains(h, "application/pdf, text/markdown") {
				t.Errorf("hint %q does not list what is supported", h)
			}
		})
	}
}
