package mysql

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"leat"
)

// FuzzJSONB: whatever the bytes, an error that says so or valid JSON.
func FuzzJSONB(f *testing.F) {
	f.Add([]byte{jsonLiteral, 1})
	f.Add([]byte{jsonSmallArray, 1, 0, 12, 0, jsonString, 7, 0, 2, 'h', 'i', 0, 0})
	f.Add([]byte{jsonSmallObject, 1, 0, 12, 0, 11, 0, 1, 0, jsonInt16, 5, 0, 'k'})
	f.Add([]byte{jsonOpaque, typeNewDecimal, 4, 3, 1, 0x80, 0x0C, 5})
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := appendJSONB(nil, data)
		if err != nil {
			if !errors.Is(err, leat.ErrMalformed) && !errors.Is(err, errRow) {
				t.Fatal(err)
			}
			return
		}
		if !json.Valid(got) {
			t.Fatalf("%x became %q", data, got)
		}
	})
}

// FuzzJSONText: compact JSON of the same value, or an error where encoding/json
// has one too.
func FuzzJSONText(f *testing.F) {
	f.Add(`{"a": [1, 2.50, "x\u0000", null], "b": {}}`)
	f.Add(`[1e400]`)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := appendJSON(nil, []byte(text))
		var want any
		if json.Unmarshal([]byte(text), &want) != nil {
			return // a first value followed by others, or no JSON
		}
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		var have any
		if err := json.Unmarshal(got, &have); err != nil {
			t.Fatalf("%q became %q: %v", text, got, err)
		}
		if diff := cmp.Diff(want, have); diff != "" {
			t.Fatalf("%q became %q:\n%s", text, got, diff)
		}
	})
}

// FuzzRow: whatever the bytes of a row, an error or cells, never a panic.
func FuzzRow(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 0, 0, 2, 'h', 'i'}, byte(3), uint16(0))
	f.Fuzz(func(t *testing.T, data []byte, typ byte, meta uint16) {
		tab := newTable("shop", TableConfig{Table: "a.b", Title: "t"})
		l := &mapLayout{table: tab, steps: []step{
			{cell: 0, typ: typ, meta: meta, values: [][]byte{[]byte("a")}},
			{cell: -1, typ: typ, meta: meta},
		}}
		cells := make([]cell, 1)
		if rest, _, err := l.decode(data, cells, nil); err == nil && len(rest) > len(data) {
			t.Fatal("more was left than given")
		}
	})
}

func TestDocumentIDsAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(rapid.String(), 1, 3).Draw(t, "key")
		tab := newTable("my shop/1", TableConfig{Table: "a b.c/d", Title: "t"})
		l := &layout{}
		var cells []cell
		for i, p := range parts {
			l.columns, l.key = append(l.columns, column{kind: text}), append(l.key, i)
			cells = append(cells, cell{b: []byte(p)})
		}
		m := newMaker("my shop/1")
		want := leat.DocumentID("mysql", "my shop/1", append([]string{"a b.c/d"}, parts...)...)
		if got := m.id(tab, l, cells); got != want {
			t.Fatalf("%q, not %q", got, want)
		}
		tab.read = &readLayout{layout: *l}
		for range parts {
			tab.read.keyKinds = append(tab.read.keyKinds, column{kind: text})
		}
		key, ok := tab.parseKey(strings.TrimPrefix(want, tab.idPrefix))
		for i, p := range parts {
			if !ok || key[i] != quoteText(p) {
				t.Fatalf("key of %q: %v %v", want, key, ok)
			}
		}
	})
}

func TestVersions(t *testing.T) {
	ordered := []uint64{
		version(1, position{0, 4}), version(1, position{1, 4}), version(1, position{1, math.MaxUint32}),
		version(1, position{2, 4}), version(1, position{maxFile, 0}), version(2, position{}), version(maxEpoch, position{maxFile, math.MaxUint32}),
	}
	for i, v := range ordered {
		if i > 0 && v <= ordered[i-1] {
			t.Errorf("version %d: %d is not above %d", i, v, ordered[i-1])
		}
	}
	if last := ordered[len(ordered)-1]; last != 1<<63-1 {
		t.Errorf("the highest version is %d, not 1<<63-1", last)
	}
	for name, want := range map[string]uint32{"binlog.000012": 12, "mysql-bin.1000000": 1000000, "host.domain-bin.000001": 1} {
		if got, err := fileNumber(name); err != nil || got != want {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
	for _, name := range []string{"binlog", "binlog.index", "binlog.1048576"} {
		if _, err := fileNumber(name); err == nil {
			t.Errorf("%s has a number", name)
		}
	}
}

func TestKeyAfter(t *testing.T) {
	r := &readLayout{keyNames: []string{"`a`", "`b`", "`c`"}}
	want := "`a`>=1 AND (`a`>1 OR (`a`=1 AND (`b`>2 OR (`b`=2 AND `c`>3))))"
	if got := keyAfter(r, []string{"1", "2", "3"}); got != want {
		t.Errorf("%s, not %s", got, want)
	}
	r.keyNames = r.keyNames[:1]
	if got := keyAfter(r, []string{"1"}); got != "`a`>1" {
		t.Error(got)
	}
}

func TestBehind(t *testing.T) {
	logs := [][]string{{"binlog.000001", "100", "No"}, {"binlog.000002", "1000", "No"}, {"binlog.000003", "50", "No"}}
	if got := behind(logs, position{2, 400}); got != 650 {
		t.Errorf("%d bytes behind, not 650", got)
	}
}
