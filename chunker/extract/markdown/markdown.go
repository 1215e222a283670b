// Package markdown reads Markdown. Its text is the document's own source, in
// UTF-8, with the structure recognised line by line after CommonMark 0.31
// (ATX and setext headings, fenced and indented code, list items) and GFM
// (tables); front matter in YAML or TOML is one block. It holds about 100 KiB
// of a document of any size, so constructs that need the whole of it, such as
// link references, and markup inside a line stay as they are written.
package markdown

import (
	"context"
	"io"
	"iter"
	"strings"

	"leat/chunker/extract"
)

// Extract is an [extract.Extractor].
func Extract(ctx context.Context, r io.Reader, o extract.Options) (extract.Content, error) {
	r, err := extract.Decode(r, o.Charset)
	if err != nil {
		return extract.Content{}, err
	}
	lines := extract.NewLines(r)
	front := frontMatter(lines.Peek())
	return extract.Content{Title: frontTitle(front), Blocks: blocks(ctx, lines, len(front))}, nil
}

// state of the recognition between two lines.
type state struct {
	front   int // bytes of front matter still to come
	kind    extract.Kind
	open    bool   // the element may go on: no blank line since
	listing bool   // inside a list: an indented line goes on with its item
	fence   string // that closes the open fenced code, "" outside
}

// line is a line, or the first piece of a very long one, and what it is.
type line struct {
	extract.Block
	plain bool // a paragraph's first line, which a setext underline makes a heading
}

func blocks(ctx context.Context, lines *extract.Lines, front int) iter.Seq2[extract.Block, error] {
	return func(yield func(extract.Block, error) bool) {
		s := state{front: front}
		var held *extract.Block // a paragraph's first line: the next may underline it
		release := func() bool {
			if held == nil {
				return true
			}
			b := *held
			held = nil
			return yield(b, nil)
		}
		for {
			text, begins, err := lines.Next()
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				if release() && err != io.EOF {
					yield(extract.Block{}, err)
				}
				return
			}
			if !begins {
				s.front -= len(text)
				if !release() || !yield(extract.Block{Text: text, Kind: s.kind, Continued: true}, nil) {
					return
				}
				continue
			}
			if level := underline(text); level > 0 && held != nil {
				held.Kind, held.Level, held.Title = extract.Heading, level, strings.TrimSpace(held.Text)
				s.kind, s.open = extract.Heading, false
				if !release() || !yield(extract.Block{Text: text, Kind: extract.Heading, Continued: true}, nil) {
					return
				}
				continue
			}
			if !release() {
				return
			}
			l := s.next(text)
			if l.plain && strings.HasSuffix(text, "\n") {
				held = &l.Block
				continue
			}
			if !yield(l.Block, nil) {
				return
			}
		}
	}
}

// next recognises one line.
func (s *state) next(text string) line {
	b := extract.Block{Text: text}
	indent, rest := unindent(text)
	if s.front > 0 {
		b.Kind, b.Continued = extract.Code, s.open
		s.front -= len(text)
		s.kind, s.open = extract.Code, s.front > 0
		return line{Block: b}
	}
	if s.fence != "" {
		b.Kind, b.Continued = extract.Code, true
		if indent < 4 && strings.HasPrefix(rest, s.fence) && strings.Trim(rest, s.fence[:1]) == "" {
			s.fence, s.open = "", false
		}
		return line{Block: b}
	}
	if rest == "" {
		b.Kind, b.Continued = s.kind, true
		s.open = false
		return line{Block: b}
	}
	goesOn := s.open
	s.open = true
	switch fence, level := fenceOf(rest), headingLevel(rest); {
	case indent >= 4 && !s.listing && (!goesOn || s.kind == extract.Code):
		b.Kind, b.Continued = extract.Code, goesOn || s.kind == extract.Code
	case indent < 4 && fence != "":
		b.Kind, s.fence = extract.Code, fence
	case indent < 4 && level > 0:
		b.Kind, b.Level, b.Title = extract.Heading, level, headingText(rest)
		s.open, s.listing = false, false
	case listItem(rest) && !isRule(rest):
		b.Kind, s.listing = extract.List, true
	case s.listing && (indent >= 2 || goesOn): // a further paragraph, or a lazy line, of the item
		b.Kind, b.Continued = extract.List, true
	case strings.HasPrefix(rest, "|") || goesOn && s.kind == extract.Table && strings.Contains(rest, "|"):
		b.Kind, b.Continued = extract.Table, goesOn && s.kind == extract.Table
		s.listing = false
	case goesOn && s.kind == extract.Paragraph && isDelimiterRow(rest): // the line before was the header of a table
		b.Kind, b.Continued = extract.Table, true
	default:
		b.Kind, b.Continued = extract.Paragraph, goesOn && s.kind == extract.Paragraph
		s.listing = false
		s.kind = b.Kind
		return line{Block: b, plain: !b.Continued && !isRule(rest) && indent < 4}
	}
	s.kind = b.Kind
	return line{Block: b}
}

// unindent returns the width of the white space that begins a line, a tab
// reaching the next multiple of four, and the line without it and what ends it.
func unindent(line string) (int, string) {
	rest := strings.TrimRight(line, " \t\r\n")
	for i, w := 0, 0; i < len(rest); i++ {
		switch rest[i] {
		case ' ':
			w++
		case '\t':
			w += 4 - w%4
		default:
			return w, rest[i:]
		}
	}
	return 0, strings.TrimLeft(rest, " \t")
}

func headingLevel(s string) int {
	n := 0
	for n < len(s) && s[n] == '#' {
		n++
	}
	if n == 0 || n > 6 || n < len(s) && s[n] != ' ' && s[n] != '\t' {
		return 0
	}
	return n
}

func headingText(s string) string {
	s = strings.TrimSpace(strings.TrimLeft(s, "#"))
	if t := strings.TrimRight(s, "#"); t == "" || strings.HasSuffix(t, " ") || strings.HasSuffix(t, "\t") {
		s = strings.TrimSpace(t) // the closing sequence
	}
	return s
}

// underline returns the level of the setext heading that the line makes of the one above.
func underline(line string) int {
	indent, s := unindent(line)
	switch {
	case s == "" || indent > 3:
	case strings.Trim(s, "=") == "":
		return 1
	case strings.Trim(s, "-") == "":
		return 2
	}
	return 0
}

// fenceOf returns what opens a fenced code, which a line of the same or more closes.
func fenceOf(s string) string {
	n := 0
	for n < len(s) && s[n] == s[0] && (s[0] == '`' || s[0] == '~') {
		n++
	}
	if n < 3 || s[0] == '`' && strings.Contains(s[n:], "`") {
		return ""
	}
	return s[:n]
}

func listItem(s string) bool {
	n := 0
	for n < len(s) && n < 9 && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	switch {
	case n < len(s) && n > 0 && (s[n] == '.' || s[n] == ')'), n == 0 && strings.IndexByte("-*+", s[0]) >= 0:
		return n+1 == len(s) || s[n+1] == ' ' || s[n+1] == '\t'
	}
	return false
}

// isRule tells a thematic break, such as "* * *".
func isRule(s string) bool {
	s = strings.Map(func(r rune) rune {
		if r == ' ' || r == '\t' {
			return -1
		}
		return r
	}, s)
	return len(s) >= 3 && strings.IndexByte("-*_", s[0]) >= 0 && strings.Trim(s, s[:1]) == ""
}

func isDelimiterRow(s string) bool {
	return strings.Contains(s, "|") && strings.Contains(s, "-") && strings.Trim(s, "|-: \t") == ""
}

// frontMatter returns what stands between the markers on top, with them, or "".
func frontMatter(head string) string {
	for _, mark := range []string{"---", "+++"} {
		first, rest, ok := strings.Cut(head, "\n")
		if !ok || strings.TrimRight(first, " \t\r") != mark {
			continue
		}
		for n := len(head) - len(rest); rest != ""; {
			l, after, _ := strings.Cut(rest, "\n")
			n += len(rest) - len(after)
			if t := strings.TrimRight(l, " \t\r"); t == mark || t == "..." && mark == "---" {
				return head[:n]
			}
			if !strings.Contains(rest, "\n") {
				break
			}
			rest = after
		}
	}
	return ""
}

// frontTitle returns the title that front matter states on a line of its own.
func frontTitle(front string) string {
	for l := range strings.Lines(front) {
		key, value, ok := strings.Cut(strings.Replace(l, " = ", ": ", 1), ":")
		if ok && key == "title" {
			value = strings.TrimSpace(value)
			if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
				value = value[1 : n-1]
			}
			return value
		}
	}
	return ""
}
