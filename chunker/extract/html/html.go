// Package html reads HTML. The document becomes Markdown through
// html-to-markdown, and that is its text: headings, lists, tables and
// preformatted text keep their structure; scripts, styles, navigation, link
// targets, images (but for their alternative text) and emphasis are left out.
//
// A document may have 16 MiB and 500,000 tags (leat.ErrTooLarge past that). It
// costs memory of about 20 times its size, at most about 400 MiB.
package html

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"strings"

	"github.com/JohannesKaufmann/html-to-markdown/v2/converter"
	"github.com/JohannesKaufmann/html-to-markdown/v2/plugin/base"
	"github.com/JohannesKaufmann/html-to-markdown/v2/plugin/commonmark"
	"github.com/JohannesKaufmann/html-to-markdown/v2/plugin/table"
	"golang.org/x/net/html"

	"leat"
	"leat/chunker/extract"
	"leat/chunker/extract/markdown"
)

const (
	maxBytes   = 16 << 20
	maxTags    = 500_000
	maxNesting = 16   // of lists and quotes: each level repeats its indent on every line
	prescan    = 4096 // bytes in which a charset is declared; browsers look at 1024
)

// Extract is an [extract.Extractor].
func Extract(ctx context.Context, r io.Reader, o extract.Options) (extract.Content, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	if err != nil {
		return extract.Content{}, err
	}
	if len(raw) > maxBytes {
		return extract.Content{}, tooLarge("an HTML document of more than %d MiB", maxBytes>>20)
	}
	if o.Charset == "" {
		o.Charset = declared(raw[:min(len(raw), prescan)])
	}
	utf8, err := extract.Decode(bytes.NewReader(raw), o.Charset)
	if err != nil {
		return extract.Content{}, err
	}
	plain, title, err := simplify(ctx, utf8)
	if err != nil {
		return extract.Content{}, err
	}
	raw = nil
	doc, err := html.Parse(plain)
	if err != nil { // the one error the parser has: more than 512 open elements
		return extract.Content{}, leat.Hint(fmt.Errorf("%w: %w", leat.ErrTooLarge, err),
			"elements are nested deeper than the parser allows; a page saved by another tool may be flatter")
	}
	conv := converter.NewConverter(
		converter.WithPlugins(base.NewBasePlugin(), commonmark.NewCommonmarkPlugin(),
			table.NewTablePlugin(table.WithCellPaddingBehavior(table.CellPaddingBehaviorMinimal),
				table.WithHeaderPromotion(true), table.WithSkipEmptyRows(true))),
		converter.WithEscapeMode(converter.EscapeModeDisabled)) // the text is searched, not rendered
	for _, name := range []string{"tr", "td", "th", "caption", "summary"} { // of tables that are no tables: apart all the same
		conv.Register.TagType(name, converter.TagTypeBlock, converter.PriorityStandard)
	}
	md, err := conv.ConvertNode(doc, converter.WithContext(ctx))
	if err != nil {
		return extract.Content{}, fmt.Errorf("HTML to Markdown: %w", err)
	}
	c, err := markdown.Extract(ctx, bytes.NewReader(md), extract.Options{})
	c.Title = title
	return c, err
}

func tooLarge(format string, args ...any) error {
	return leat.Hint(fmt.Errorf(format+": %w", append(args, leat.ErrTooLarge)...),
		"split the page, or save its text as Markdown, which has no limit")
}

// declared returns the charset that a <meta> of the document's head names, or "".
func declared(head []byte) string {
	z := html.NewTokenizer(bytes.NewReader(head))
	for {
		switch z.Next() {
		case html.ErrorToken:
			return ""
		case html.StartTagToken, html.SelfClosingTagToken:
			t := z.Token()
			if t.Data != "meta" {
				continue
			}
			attr := make(map[string]string, len(t.Attr))
			for _, a := range t.Attr {
				attr[a.Key] = a.Val
			}
			if attr["charset"] != "" {
				return attr["charset"]
			}
			if strings.EqualFold(attr["http-equiv"], "content-type") {
				if _, p, err := mime.ParseMediaType(attr["content"]); err == nil && p["charset"] != "" {
					return p["charset"]
				}
			}
		}
	}
}

// What simplify does with an element.
type treatment uint8

const (
	keep     treatment = iota
	unwrap             // its content stays, its tags go
	remove             // it goes with its content
	omit               // so it does, if it ends: content after a tag never closed is not lost
	verbatim           // its content is text, whatever it looks like
	nested             // kept down to maxNesting
)

var treatments = map[string]treatment{
	// Formatting elements are what makes HTML parsers copy: overlapping ones are
	// opened again in every later block. Their markup is noise in a search.
	"a": unwrap, "b": unwrap, "big": unwrap, "code": unwrap, "em": unwrap, "font": unwrap, "i": unwrap,
	"nobr": unwrap, "s": unwrap, "small": unwrap, "strike": unwrap, "strong": unwrap, "tt": unwrap, "u": unwrap,
	"abbr": unwrap, "cite": unwrap, "del": unwrap, "ins": unwrap, "kbd": unwrap, "mark": unwrap, "math": unwrap,
	"q": unwrap, "samp": unwrap, "span": unwrap, "sub": unwrap, "sup": unwrap, "time": unwrap, "var": unwrap,
	"form": unwrap, "label": unwrap, "template": unwrap, "frameset": unwrap,
	"script": remove, "style": remove, "noscript": remove, "iframe": remove, "noembed": remove, "noframes": remove,
	"textarea": remove, "select": remove, "button": remove, "svg": remove, "object": remove,
	"nav": omit, "xmp": verbatim, "plaintext": verbatim,
	"ul": nested, "ol": nested, "dl": nested, "blockquote": nested, "table": nested,
}

// simplify writes the document anew without what the text does not need, so
// that parser and converter do work in proportion to its size, and returns its
// title.
func simplify(ctx context.Context, r io.Reader) (io.Reader, string, error) {
	var (
		out     bytes.Buffer
		title   string
		inTitle bool
		removed string // the element that is being left out
		depth   int    // of elements of that name inside it
		omitted []int  // where in out elements begin that may be omitted
		literal bool   // the next text is verbatim
		nesting = map[string]int{}
	)
	z := html.NewTokenizer(r)
	for tags := 0; ; {
		tt := z.Next()
		if tt == html.ErrorToken {
			if err := z.Err(); err != io.EOF {
				return nil, "", err
			}
			return &out, strings.Join(strings.Fields(title), " "), nil
		}
		if tt == html.TextToken {
			switch {
			case removed != "":
			case inTitle:
				title = string(z.Text())
			case literal:
				out.WriteString(html.EscapeString(string(z.Raw())))
			default:
				out.Write(z.Raw())
			}
			continue
		}
		if tt == html.CommentToken || tt == html.DoctypeToken {
			continue
		}
		if tags++; tags > maxTags {
			return nil, "", tooLarge("an HTML document of more than %d tags", maxTags)
		}
		if tags%1024 == 0 && ctx.Err() != nil {
			return nil, "", ctx.Err()
		}
		raw, hasAttr := z.TagName()
		name, end := string(raw), tt == html.EndTagToken
		if removed != "" {
			if name == removed && tt != html.SelfClosingTagToken {
				if end {
					depth--
				} else {
					depth++
				}
			}
			if depth == 0 {
				removed = ""
			}
			continue
		}
		if name == "title" {
			inTitle = !end && title == ""
			continue
		}
		if name == "img" {
			out.WriteString(html.EscapeString(alt(z, hasAttr)))
			continue
		}
		switch treatments[name] {
		case unwrap:
			continue
		case remove:
			if tt == html.StartTagToken {
				removed, depth = name, 1
			}
			continue
		case omit:
			if n := len(omitted); end && n > 0 {
				out.Truncate(omitted[n-1])
				omitted = omitted[:n-1]
			} else if tt == html.StartTagToken {
				omitted = append(omitted, out.Len())
			}
			continue
		case verbatim:
			literal, name = !end, "pre"
		case nested:
			if end {
				nesting[name]--
			} else {
				nesting[name]++
			}
			if n := nesting[name]; n > maxNesting || n < 0 || end && n == maxNesting {
				nesting[name] = max(n, 0)
				continue
			}
		}
		out.WriteByte('<')
		if end {
			out.WriteByte('/')
		}
		out.WriteString(name)
		out.WriteByte('>')
	}
}

// alt returns the alternative text of the image whose attributes come next.
func alt(z *html.Tokenizer, more bool) string {
	for more {
		var key, val []byte
		key, val, more = z.TagAttr()
		if string(key) == "alt" {
			return string(val)
		}
	}
	return ""
}
