package config

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"

	"leat"
)

// resolve makes the relative paths of fields tagged config:"path" relative to
// the file's folder.
func (d *decoder) resolve(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			d.resolve(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			d.resolve(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			switch {
			case !f.IsExported():
			case f.Tag.Get("config") != "path":
				d.resolve(v.Field(i))
			case v.Field(i).String() != "" && !filepath.IsAbs(v.Field(i).String()):
				v.Field(i).SetString(d.absolute(v.Field(i).String()))
			}
		}
	}
}

// validate calls Validate of the file's own struct and then of the outermost
// components in it; a component's covers what is below it.
func (d *decoder) validate(v reflect.Value, path string, top bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			d.validate(v.Elem(), path, false)
		}
	case reflect.Slice:
		for i := range v.Len() {
			d.validate(v.Index(i), index(path, i), false)
		}
	case reflect.Struct:
		if c, ok := v.Addr().Interface().(interface{ Validate() error }); ok {
			d.fieldErrors(c.Validate(), path)
			if !top {
				return
			}
		}
		for name, f := range fields(v) {
			if !f.secret {
				d.validate(f.value, under(path, name), false)
			}
		}
	}
}

// fieldErrors adds a component's errors where their fields stand. A mistake
// that reading the file found already, or that follows from one, is not told of.
func (d *decoder) fieldErrors(err error, path string) {
	if err == nil {
		return
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range many.Unwrap() {
			d.fieldErrors(err, path)
		}
		return
	}
	e := &Error{File: d.file, Path: path, Msg: err.Error(), Hint: leat.HintOf(err)}
	var field *leat.FieldError
	if errors.As(err, &field) {
		e.Msg, e.Hint = field.Msg, field.Hint
		if field.Field != "" {
			e.Path = under(path, field.Field)
		}
	}
	for path := e.Path; ; path = above(path) {
		if d.failed[path] {
			return
		}
		if path == "" {
			break
		}
	}
	at := d.nearest(e.Path)
	e.Line, e.Column = at.line, at.column
	d.errs = append(d.errs, e)
}

// nearest is where a key stands, or the closest one above it that is there.
func (d *decoder) nearest(path string) mark {
	for {
		if at, ok := d.where[path]; ok {
			return at
		}
		path = above(path)
	}
}

// above is the path of the mapping or list that holds a key.
func above(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }
