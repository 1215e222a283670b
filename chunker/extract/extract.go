// Package extract turns the bytes of a document into blocks of text. Each
// format is a package below this one; a [Registry] picks the format by name and
// content.
//
// The extracted text of a document is the concatenation of the Text of all its
// blocks: every byte offset that leat reports is an offset into it.
package extract

import (
	"context"
	"io"
	"iter"
)

// Kind says what a block is.
type Kind uint8

const (
	Paragraph Kind = iota
	Heading
	List  // an item of a list
	Table // rows of a table, a line each
	Code  // lines that belong together: source code, front matter
)

// Block is an element of a document, or a piece of one: a long element comes as
// several blocks, all but the first with Continued set.
type Block struct {
	Text      string // valid UTF-8, with the white space that follows it
	Kind      Kind
	Continued bool   // goes on with the element of the block before
	Level     int    // of a Heading: 1 is the outermost
	Title     string // of a Heading's first block: its text without markup
	Page      int    // from 1; 0 where the format has none
}

// Content is an opened document.
type Content struct {
	MediaType string // what it was read as, such as "text/markdown"
	Title     string // that the document itself states outside its text (<title>, front matter); "" if none
	// Blocks yields the document in order, once. It ends after an error, which
	// is one of the leat sentinels where the content itself is at fault.
	Blocks iter.Seq2[Block, error]
}

// Options say what is known of a document before it is read.
type Options struct {
	Charset string // of textual formats, as a WHATWG label; "" detects it
}

// Extractor reads one format. It holds no more of a document in memory than
// its package documents, and r is read while Blocks is ranged over.
type Extractor func(ctx context.Context, r io.Reader, o Options) (Content, error)
