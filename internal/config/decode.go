package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/agnivade/levenshtein"
	"go.yaml.in/yaml/v3"

	"leat"
)

// decoder fills a struct from the nodes of a YAML file. It goes through both
// side by side instead of leaving that to the YAML library, so as to know where
// every key stands, to go on after a mistake, and to treat a few fields in ways
// of their own:
//
//   - A [leat.Secret] field "x" also takes a key "x_file": the secret is that
//     file's content without the line ends behind it.
//   - config:"path" on a string: a relative path is relative to the file's folder.
//   - config:"size" on an integer: also takes "64MiB", in bytes.
//   - config:"kind" on several pointer fields of a struct: the mapping has
//     exactly one of them.
//
// Its recursion ends with the types, not with the file: aliases can make
// neither a loop nor a large value of a small file.
type decoder struct {
	file   string
	dir    string
	getenv func(string) (string, bool)
	errs   Errors
	where  map[string]mark       // key paths of the file
	failed map[string]bool       // key paths with a mistake, or that one seems to mean
	raw    map[*yaml.Node]string // what stood where a variable was expanded
}

// mark is a place in the file.
type mark struct{ line, column int }

func markOf(n *yaml.Node) mark { return mark{n.Line, n.Column} }

// load reads a file into a struct, which holds the defaults, and validates it.
func load(file string, into any, getenv func(string) (string, bool)) error {
	d := &decoder{
		file: file, dir: filepath.Dir(file), getenv: getenv,
		where: map[string]mark{"": {1, 1}}, failed: map[string]bool{}, raw: map[*yaml.Node]string{},
	}
	v := reflect.ValueOf(into).Elem()
	if d.parse(v) {
		d.resolve(v)
		d.validate(v, "", true)
	}
	if len(d.errs) > 0 {
		return d.errs.sorted()
	}
	return nil
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

var unknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)

// markAfter is the place behind a text.
func markAfter(text string) mark {
	return mark{1 + strings.Count(text, "\n"), utf8.RuneCountInString(text[strings.LastIndexByte(text, '\n')+1:]) + 1}
}

// notUTF8 finds the first byte that is not UTF-8.
func notUTF8(text []byte) (mark, bool) {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 {
			return markAfter(string(text[:i])), true
		}
		i += size
	}
	return mark{}, false
}

// parse reads and decodes; false if the file could not be read as YAML at all.
func (d *decoder) parse(v reflect.Value) bool {
	text, err := os.ReadFile(d.file)
	if err != nil {
		e := &Error{File: d.file, Msg: err.Error()}
		var path *os.PathError
		if errors.As(err, &path) {
			e.Msg = path.Err.Error()
		}
		if errors.Is(err, os.ErrNotExist) {
			e.Hint = "write one, or name another with --config"
		}
		d.errs = append(d.errs, e)
		return false
	}
	if at, ok := notUTF8(text); ok {
		d.fail(at, "", "not UTF-8", "save the file as UTF-8")
		return false
	}
	var doc, more yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	err = dec.Decode(&doc)
	if err == nil {
		if err = dec.Decode(&more); err == nil {
			d.fail(markOf(&more), "", "a second YAML document begins here", "leave one, without ---")
			return false
		}
	}
	if !errors.Is(err, io.EOF) {
		at, msg := mark{1, 1}, err.Error()
		if m := yamlLine.FindStringSubmatch(msg); m != nil {
			at.line, _ = strconv.Atoi(m[1])
			at.line = max(at.line, 1)
			msg = m[2]
		}
		if m := unknownAnchor.FindStringSubmatch(msg); m != nil { // comes without a line
			before, _, _ := strings.Cut(string(text), "*"+m[1])
			at = markAfter(before)
		}
		hint := ""
		if strings.Contains(msg, "cannot start any token") {
			hint = "YAML is indented with spaces, not tabs; quote a value that begins with @, ` or %"
		} else if strings.Contains(msg, "mapping values are not allowed") {
			hint = `see whether the line is indented as its neighbours are; quote a value that contains ": "`
		}
		d.fail(at, "", "not YAML: "+msg, hint)
		return false
	}
	if len(doc.Content) == 0 {
		return true // an empty file is an empty mapping
	}
	top := doc.Content[0]
	d.expand(top, "")
	d.value(top, v, "", mark{1, 1})
	return true
}

func (d *decoder) fail(at mark, path, msg, hint string) {
	d.failed[path] = true
	d.errs = append(d.errs, &Error{File: d.file, Line: at.line, Column: at.column, Path: path, Msg: msg, Hint: hint})
}

// value decodes one node. key is where the key stands, or the list's item.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string, key mark) {
	if n.Kind == yaml.AliasNode {
		d.value(n.Alias, v, path, key)
		return
	}
	d.where[path] = key
	if n.Kind == yaml.ScalarNode {
		d.where[path] = markOf(n)
	}
	if v.Kind() == reflect.Pointer {
		if v.Type().Elem().Kind() != reflect.Struct && d.absent(n) {
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch into := v.Addr().Interface().(type) {
	case *leat.Secret:
		if n.Kind != yaml.ScalarNode {
			d.wrong(n, path, "text")
			return
		}
		*into = leat.Secret(d.text(n))
		return
	case *time.Duration:
		d.duration(n, into, path)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Slice:
		d.list(n, v, path)
	default:
		d.scalar(n, v, path)
	}
}

// absent reports whether a key has no value: its default holds. A variable
// that holds "null" or "~" is a value.
func (d *decoder) absent(n *yaml.Node) bool {
	_, expanded := d.raw[n]
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" && (n.Value == "" || !expanded)
}

func (d *decoder) text(n *yaml.Node) string {
	if d.absent(n) {
		return ""
	}
	return n.Value
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string) {
	kind := v.Kind()
	if d.absent(n) {
		return
	}
	want, ok := "", true
	switch {
	case kind == reflect.String:
		want = "text"
		if ok = n.Kind == yaml.ScalarNode; ok {
			v.SetString(n.Value)
		}
	case kind == reflect.Bool:
		want = "true or false"
		if ok = n.Kind == yaml.ScalarNode && n.ShortTag() == "!!bool"; ok {
			v.SetBool(strings.EqualFold(n.Value, "true"))
		}
	case v.CanInt() || v.CanUint():
		want = "a whole number"
		if ok = n.Kind == yaml.ScalarNode && n.ShortTag() == "!!int"; ok {
			if err := n.Decode(v.Addr().Interface()); err != nil {
				lowest, highest := limits(v)
				d.fail(markOf(n), path, fmt.Sprintf("%s is out of range", d.shown(n)), fmt.Sprintf("give a whole number from %s to %s", lowest, highest))
			}
		}
	case v.CanFloat():
		want = "a number"
		if ok = n.Kind == yaml.ScalarNode && (n.ShortTag() == "!!int" || n.ShortTag() == "!!float"); ok {
			ok = n.Decode(v.Addr().Interface()) == nil
		}
	default:
		panic(fmt.Sprintf("config: %s is a %s, which no configuration has", path, v.Type()))
	}
	if !ok {
		d.wrong(n, path, want)
	}
}

func limits(v reflect.Value) (string, string) {
	bits := v.Type().Bits()
	if v.CanUint() {
		return "0", strconv.FormatUint(1<<bits-1, 10)
	}
	return strconv.FormatInt(-1<<(bits-1), 10), strconv.FormatInt(1<<(bits-1)-1, 10)
}

// wrong reports a value of the wrong type.
func (d *decoder) wrong(n *yaml.Node, path, want string) {
	hint := ""
	if n.Kind == yaml.ScalarNode && want != "text" && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		if plain := (&yaml.Node{Kind: yaml.ScalarNode, Value: n.Value}); plain.ShortTag() != "!!str" {
			hint = "leave out the quotes"
		}
	}
	if want == "true or false" && n.Kind == yaml.ScalarNode && slices.Contains([]string{"yes", "no", "on", "off"}, strings.ToLower(n.Value)) {
		hint = "write true or false"
	}
	d.fail(markOf(n), path, fmt.Sprintf("found %s, expected %s", d.shown(n), want), hint)
}

// shown is a value as it stands in the file, without what a variable holds.
func (d *decoder) shown(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	value := n.Value
	if raw, ok := d.raw[n]; ok {
		value = raw
	}
	if r := []rune(value); len(r) > 60 {
		value = string(r[:60]) + "…"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!int", "!!float", "!!bool":
		return value
	}
	return strconv.Quote(value)
}

func (d *decoder) duration(n *yaml.Node, into *time.Duration, path string) {
	if d.absent(n) {
		return
	}
	if n.Kind == yaml.ScalarNode {
		if v, err := time.ParseDuration(n.Value); err == nil {
			*into = v
			return
		}
	}
	hint := `write a number with its unit, such as "500ms", "60s" or "1h30m"`
	d.fail(markOf(n), path, fmt.Sprintf("found %s, expected a duration", d.shown(n)), hint)
}

var sizeText = regexp.MustCompile(`^([0-9]+) ?(B|KiB|MiB|GiB)$`)

// size decodes a number of bytes.
func (d *decoder) size(n *yaml.Node, v reflect.Value, path string) {
	m := sizeText.FindStringSubmatch(n.Value)
	if n.Kind != yaml.ScalarNode || m == nil {
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!int" {
			d.scalar(n, v, path)
			return
		}
		d.fail(markOf(n), path, fmt.Sprintf("found %s, expected a size", d.shown(n)), `write it as "512KiB", "64MiB" or "2GiB"`)
		return
	}
	unit := map[string]int64{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[m[2]]
	bytes, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || bytes > (1<<63-1)/unit || v.OverflowInt(bytes*unit) {
		d.fail(markOf(n), path, fmt.Sprintf("%s is out of range", d.shown(n)), "")
		return
	}
	v.SetInt(bytes * unit)
}

// field is a key that a struct takes.
type field struct {
	value  reflect.Value
	tag    string // config:"…"
	secret bool   // key is its file: see decoder
}

// fields of a struct by key.
func fields(v reflect.Value) map[string]field {
	all := map[string]field{}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name := f.Tag.Get("yaml")
		all[name] = field{value: v.Field(i), tag: f.Tag.Get("config")}
		if f.Type == reflect.TypeFor[leat.Secret]() {
			all[name+"_file"] = field{value: v.Field(i), secret: true}
		}
	}
	return all
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, path string) {
	known := fields(v)
	var kinds []string // that the struct has, and those that the file has
	for name, f := range known {
		if f.tag == "kind" {
			kinds = append(kinds, name)
		}
	}
	slices.Sort(kinds)
	var chosen []string
	unknown := false
	secrets := map[string]int{} // line that gives each

	d.keys(n, path, func(key, value *yaml.Node, below string) {
		f, ok := known[key.Value]
		if !ok {
			unknown = true
			d.unknown(key, below, path, known)
			return
		}
		at := markOf(key)
		if f.tag == "kind" {
			if chosen = append(chosen, key.Value); len(chosen) == 2 {
				d.fail(at, below, fmt.Sprintf("%s stands here already", chosen[0]), "keep one of "+strings.Join(kinds, ", "))
			}
		}
		if f.value.Type() == reflect.TypeFor[leat.Secret]() {
			name := key.Value
			if f.secret {
				name = strings.TrimSuffix(name, "_file")
			}
			if line := secrets[name]; line > 0 {
				d.fail(at, below, fmt.Sprintf("the secret is also given on line %d", line), "keep one of the two")
				return
			}
			secrets[name] = at.line
		}
		switch {
		case f.secret:
			d.secretFile(value, f.value, below, at)
		case f.tag == "size":
			d.where[below] = markOf(value)
			d.size(value, f.value, below)
		default:
			d.value(value, f.value, below, at)
		}
	})
	if len(kinds) > 0 && len(chosen) == 0 && !unknown && n.Kind == yaml.MappingNode {
		d.fail(d.where[path], path, "says not which kind it is", "add one of "+strings.Join(kinds, ", "))
	}
}

// keys calls with every key of a mapping and its path.
func (d *decoder) keys(n *yaml.Node, path string, with func(key, value *yaml.Node, below string)) {
	if d.absent(n) {
		return // a key whose lines below are all commented out
	}
	if n.Kind != yaml.MappingNode {
		d.wrong(n, path, "a mapping (lines of key: value)")
		return
	}
	first := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		below := under(path, key.Value)
		switch {
		case key.Kind != yaml.ScalarNode:
			d.fail(markOf(key), path, "a key must be a word", "")
		case key.ShortTag() == "!!merge":
			d.fail(markOf(key), below, "merge keys are not supported", "write the keys out")
		case first[key.Value] != nil:
			d.fail(markOf(key), below, fmt.Sprintf("duplicate key; the first is on line %d", first[key.Value].Line), "")
		default:
			first[key.Value] = key
			with(key, value, below)
		}
	}
}

func under(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

func (d *decoder) unknown(key *yaml.Node, below, path string, known map[string]field) {
	names := make([]string, 0, len(known))
	for name, f := range known {
		if !f.secret || strings.HasSuffix(key.Value, "file") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	plain := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }
	best, least := "", 1+len(key.Value)/3
	for _, name := range names {
		if n := levenshtein.ComputeDistance(plain(key.Value), plain(name)); n <= least && (best == "" || n < least) {
			best, least = name, n
		}
	}
	if best != "" {
		d.failed[under(path, best)] = true
		d.fail(markOf(key), below, "unknown key", fmt.Sprintf("did you mean %q?", best))
		return
	}
	d.fail(markOf(key), below, "unknown key", "the keys here are "+strings.Join(names, ", "))
}

// secretFile fills a secret from the file that the key x_file names.
func (d *decoder) secretFile(n *yaml.Node, v reflect.Value, path string, key mark) {
	secret := strings.TrimSuffix(path, "_file")
	d.where[secret], d.where[path] = key, markOf(n)
	if n.Kind != yaml.ScalarNode || d.text(n) == "" {
		d.wrong(n, path, "the path of a file")
		d.failed[secret] = true
		return
	}
	content, err := os.ReadFile(d.absolute(n.Value))
	if err != nil {
		d.failed[secret] = true
		var perr *os.PathError
		if errors.As(err, &perr) {
			err = perr.Err
		}
		d.fail(markOf(n), path, fmt.Sprintf("the secret's file %s: %v", d.shown(n), err), "make it readable for the user that runs leat; a relative path is relative to this file")
		return
	}
	v.SetString(strings.TrimRight(string(content), "\r\n"))
}

func (d *decoder) absolute(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(d.dir, path)
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, path string) {
	if d.absent(n) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.wrong(n, path, "a list")
		return
	}
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		d.value(item, list.Index(i), index(path, i), markOf(item))
	}
	v.Set(list)
}
