package config

import (
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// variable is ${NAME}, ${NAME:-default}, or the escaped $${.
var variable = regexp.MustCompile(`\$\$\{|\$\{([^}]*)(\}?)`)

var variableName = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*)(:-.*)?$`)

// expand replaces variables of the environment in all values, not in keys,
// below a node. A value is typed after that: ${PORT} can be a number, but what
// a variable holds is never read as YAML.
func (d *decoder) expand(n *yaml.Node, path string) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			d.expand(n.Content[i+1], under(path, n.Content[i].Value))
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			d.expand(item, index(path, i))
		}
	case yaml.ScalarNode:
		d.expandScalar(n, path)
	}
}

func (d *decoder) expandScalar(n *yaml.Node, path string) {
	if !strings.Contains(n.Value, "${") {
		return
	}
	raw := n.Value
	n.Value = variable.ReplaceAllStringFunc(raw, func(s string) string {
		if s == "$${" {
			return "${"
		}
		m := variable.FindStringSubmatch(s)
		name := variableName.FindStringSubmatch(m[1])
		if m[2] == "" || name == nil {
			d.fail(markOf(n), path, fmt.Sprintf("%q is not a variable", s), "write ${NAME} or ${NAME:-default}, and $${ for the characters themselves")
			return ""
		}
		value, set := d.getenv(name[1])
		fallback, has := strings.CutPrefix(name[2], ":-")
		switch {
		case has && value == "":
			return fallback
		case !set:
			d.fail(markOf(n), path, fmt.Sprintf("the environment variable %s is not set", name[1]),
				fmt.Sprintf("set it, or give a default as in ${%s:-default}", name[1]))
		}
		return value
	})
	if n.Value != raw {
		d.raw[n] = raw
		n.Tag, n.Style = "", 0
	}
}
