package extract

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"path"
	"slices"
	"strings"

	"github.com/gabriel-vasile/mimetype"

	"leat"
)

// detectBytes is how much of a document's beginning its type is told by.
const detectBytes = 4096

// Format is a kind of document that leat reads.
type Format struct {
	MediaType  string   // canonical
	Aliases    []string // other media types that it reads; "text/*" stands for all of that kind
	Extensions []string // of file names, with the dot, in lower case
	Textual    bool     // its bytes are text: content cannot prove it, name and media type decide
	Extract    Extractor
}

// Registry opens documents of the formats it lists.
type Registry []Format

// Open detects a document's format and opens it. A stated media type and the
// extension of name decide between formats that are text; a binary format is
// told by its content whatever it is called. No format that fits is
// leat.ErrUnsupported.
func (g Registry) Open(ctx context.Context, mediaType, name string, r io.Reader) (Content, error) {
	head := make([]byte, detectBytes)
	n, err := io.ReadFull(r, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return Content{}, err
	}
	head = head[:n]
	stated, params, err := mime.ParseMediaType(mediaType)
	if err != nil || stated == "application/octet-stream" {
		stated = ""
	}
	f, what := g.detect(stated, strings.ToLower(path.Ext(name)), head)
	if f == nil {
		return Content{}, leat.Hint(fmt.Errorf("%s: %w", what, leat.ErrUnsupported),
			"leat reads %s; convert the document to one of these, or leave it out in the source's configuration", g)
	}
	c, err := f.Extract(ctx, io.MultiReader(bytes.NewReader(head), r), Options{Charset: params["charset"]})
	if err != nil {
		return Content{}, fmt.Errorf("read as %s: %w", f.MediaType, err)
	}
	if c.MediaType == "" {
		c.MediaType = f.MediaType
	}
	return c, nil
}

// detect returns the format, or nil and what the document is instead.
func (g Registry) detect(stated, ext string, head []byte) (*Format, string) {
	content := mimetype.Detect(head)
	if f := g.byType(content.String()); f != nil && !f.Textual {
		return f, ""
	}
	if stated != "" {
		return g.byType(stated), stated
	}
	if i := slices.IndexFunc(g, func(f Format) bool { return slices.Contains(f.Extensions, ext) }); i >= 0 {
		return &g[i], ""
	}
	// Prose may begin like a binary format (every text that begins with "BM" is
	// a bitmap to a detector by magic numbers): what reads as text is text.
	for m := content; m != nil; m = m.Parent() {
		if f := g.byType(m.String()); f != nil && f.Textual {
			return f, ""
		}
	}
	if isText(head) {
		return g.byType("text/plain"), "text/plain"
	}
	return nil, content.String()
}

func (g Registry) byType(mediaType string) *Format {
	mediaType, _, _ = strings.Cut(mediaType, ";")
	kind, _, _ := strings.Cut(mediaType, "/")
	for i := range g {
		if g[i].MediaType == mediaType || slices.Contains(g[i].Aliases, mediaType) {
			return &g[i]
		}
	}
	for i := range g {
		if slices.Contains(g[i].Aliases, kind+"/*") {
			return &g[i]
		}
	}
	return nil
}

// isText tells UTF-8, or what a byte order mark says is UTF-16 or UTF-32.
func isText(head []byte) bool {
	for _, b := range boms {
		if bytes.HasPrefix(head, b.mark) {
			return true
		}
	}
	_, bad := valid(head, len(head) < detectBytes, false)
	return !bad
}

// String lists the media types.
func (g Registry) String() string {
	var s []string
	for _, f := range g {
		s = append(s, f.MediaType)
	}
	return strings.Join(s, ", ")
}
