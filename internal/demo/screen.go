package demo

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"
)

// screen writes lines for people: aligned, coloured on a terminal only.
type screen struct {
	out    io.Writer
	colour bool
}

func (s screen) line(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

func (s screen) style(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s screen) bold(text string) string  { return s.style("1", text) }
func (s screen) dim(text string) string   { return s.style("2", text) }
func (s screen) green(text string) string { return s.style("32", text) }

func (s screen) heading(text string) { s.line("\n%s", s.bold(text)) }

// row is a fact in three columns; what was checked stands in the third.
func (s screen) row(name, what, checked string) {
	s.line("  %s %s %s", pad(name, 14), pad(what, 44), s.green(checked))
}

func (s screen) command(text, why string) {
	if why != "" {
		why = s.dim("   # " + why)
	}
	s.line("    %s%s", text, why)
}

// pad fills text with spaces to a width in columns of a terminal, of which a
// Chinese character takes two.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-runewidth.StringWidth(text)))
}

// cut shortens text to a width in columns.
func cut(text string, width int) string {
	return runewidth.Truncate(strings.Join(strings.Fields(text), " "), width, "…")
}

func millis(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
