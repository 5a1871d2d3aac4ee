package dentropycmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/dentropy/dentropycloud/backup"
)

// maxAnswers bounds the file: answers for a thousand volumes are some 100 kB.
const maxAnswers = 4 << 20

// readAnswers reads the answers file of a restore: YAML with the keys of
// backup.Answers. Unknown keys, values of the wrong kind and keys that come twice are
// errors that name the line. A volume, a network and a route may also be written as
// the flag of the same name takes it.
func readAnswers(r io.Reader) (backup.Answers, error) {
	var a backup.Answers
	text, err := io.ReadAll(io.LimitReader(r, maxAnswers+1))
	if err != nil {
		return a, fmt.Errorf("read answers: %w", err)
	}
	if len(text) > maxAnswers {
		return a, fmt.Errorf("the answers file is longer than %s", backup.FormatBytes(maxAnswers))
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return a, nil // empty, or comments only: no answers
	} else if err != nil {
		return a, fmt.Errorf("the answers are no YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return a, errors.New("the answers file holds more than one document: give one")
	}
	value, err := toJSON(doc.Content[0], reflect.TypeFor[backup.Answers](), "")
	if err != nil {
		return a, err
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return a, fmt.Errorf("answers: %w", err)
	}
	if err := json.Unmarshal(raw, &a); err != nil {
		return a, fmt.Errorf("answers: %w", err)
	}
	return a, checkAnswers(a)
}

// checkAnswers refuses words that no later step would understand.
func checkAnswers(a backup.Answers) error {
	for _, c := range []struct {
		what, value string
		allowed     []string
	}{
		{"on_conflict", a.OnConflict, []string{"refuse", "replace", "rename"}},
		{"verify", a.Verify, []string{"full", "stream"}},
	} {
		if c.value != "" && !slices.Contains(c.allowed, c.value) {
			return fmt.Errorf("%s %q: give %s", c.what, c.value, strings.Join(c.allowed, ", "))
		}
	}
	return nil
}

// toJSON checks a node against a type with JSON names, and gives the value that
// encoding/json would make of it.
func toJSON(n *yaml.Node, t reflect.Type, path string) (any, error) {
	if n.Kind == yaml.AliasNode {
		return nil, lineError(n, path, "aliases (*name) are not read here: write the value")
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return nil, nil // nothing is said
	}
	switch t.Kind() {
	case reflect.Struct:
		if n.Kind == yaml.ScalarNode {
			return shortAnswer(n, t, path)
		}
		return structToJSON(n, t, path)
	case reflect.Map:
		if n.Kind != yaml.MappingNode {
			return nil, lineError(n, path, "give names with values")
		}
		out := map[string]any{}
		for key, value := range pairs(n) {
			if err := checkKey(key, out, path); err != nil {
				return nil, err
			}
			v, err := toJSON(value, t.Elem(), join(path, key.Value))
			if err != nil {
				return nil, err
			}
			if v == nil {
				return nil, lineError(value, join(path, key.Value), "a value is missing")
			}
			out[key.Value] = v
		}
		return out, nil
	case reflect.Slice:
		if n.Kind == yaml.ScalarNode { // allow: privileged
			v, err := toJSON(n, t.Elem(), path)
			return []any{v}, err
		}
		if n.Kind != yaml.SequenceNode {
			return nil, lineError(n, path, "give a list")
		}
		out := []any{}
		for _, c := range n.Content {
			v, err := toJSON(c, t.Elem(), path)
			if err != nil {
				return nil, err
			}
			if v == nil {
				return nil, lineError(c, path, "a value is missing")
			}
			out = append(out, v)
		}
		return out, nil
	}
	return scalarToJSON(n, t, path)
}

func scalarToJSON(n *yaml.Node, t reflect.Type, path string) (any, error) {
	if n.Kind != yaml.ScalarNode {
		return nil, lineError(n, path, "give one value")
	}
	switch t.Kind() {
	case reflect.Bool:
		var b bool
		if n.ShortTag() != "!!bool" || n.Decode(&b) != nil {
			return nil, lineError(n, path, fmt.Sprintf("%q: give true or false", n.Value))
		}
		return b, nil
	case reflect.String:
		return n.Value, nil // 8081 and 1.10 stay as they are written
	}
	return nil, lineError(n, path, fmt.Sprintf("a value of type %s cannot be given here", t))
}

func structToJSON(n *yaml.Node, t reflect.Type, path string) (any, error) {
	if n.Kind != yaml.MappingNode {
		return nil, lineError(n, path, "give keys with values")
	}
	fields, names := map[string]reflect.Type{}, []string{}
	for f := range jsonFields(t) {
		fields[f.name] = f.typ
		names = append(names, f.name)
	}
	out := map[string]any{}
	for key, value := range pairs(n) {
		if err := checkKey(key, out, path); err != nil {
			return nil, err
		}
		ft, ok := fields[key.Value]
		if !ok {
			return nil, lineError(key, path, fmt.Sprintf("there is no key %q: there are %s", key.Value, strings.Join(names, ", ")))
		}
		v, err := toJSON(value, ft, join(path, key.Value))
		if err != nil {
			return nil, err
		}
		out[key.Value] = v
	}
	return out, nil
}

// shortAnswer reads `db: path:/srv/db` and the like.
func shortAnswer(n *yaml.Node, t reflect.Type, path string) (any, error) {
	var v any
	var err error
	switch t {
	case reflect.TypeFor[backup.VolumeAnswer]():
		v, err = parseVolumeAnswer(n.Value)
	case reflect.TypeFor[backup.NetworkAnswer]():
		v, err = parseNetworkAnswer(n.Value)
	case reflect.TypeFor[backup.RouteAnswer]():
		v, err = parseRouteAnswer(n.Value)
	default:
		return nil, lineError(n, path, "give keys with values")
	}
	if err != nil {
		return nil, lineError(n, path, err.Error())
	}
	return v, nil
}

func checkKey(key *yaml.Node, seen map[string]any, path string) error {
	if key.Kind != yaml.ScalarNode {
		return lineError(key, path, "a key must be one word")
	}
	if key.ShortTag() == "!!merge" {
		return lineError(key, path, "merges (<<) are not read here: write the values")
	}
	if _, twice := seen[key.Value]; twice {
		return lineError(key, path, fmt.Sprintf("%q is given twice", key.Value))
	}
	return nil
}

// pairs goes through the keys and values of a mapping.
func pairs(n *yaml.Node) func(yield func(key, value *yaml.Node) bool) {
	return func(yield func(key, value *yaml.Node) bool) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i], n.Content[i+1]) {
				return
			}
		}
	}
}

type jsonField struct {
	name  string
	typ   reflect.Type
	index int
}

// jsonFields goes through the fields of a struct that encoding/json would write.
func jsonFields(t reflect.Type) func(yield func(jsonField) bool) {
	return func(yield func(jsonField) bool) {
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			if name == "" || name == "-" {
				continue
			}
			if !yield(jsonField{name, t.Field(i).Type, i}) {
				return
			}
		}
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func lineError(n *yaml.Node, path, text string) error {
	if path != "" {
		text = path + ": " + text
	}
	return fmt.Errorf("answers, line %d: %s", n.Line, text)
}

const answersHead = `Answers for: dentropy restore FILE --answers THIS-FILE
What is not in here keeps its default.`

// writeAnswers writes answers as readAnswers reads them. Questions that were left at
// their defaults follow as a comment.
func writeAnswers(w io.Writer, a backup.Answers, questions []backup.Question) error {
	doc := toYAML(reflect.ValueOf(a))
	doc.HeadComment = answersHead
	if len(questions) > 0 {
		var b strings.Builder
		b.WriteString("What can be answered, with the default:")
		for _, q := range questions {
			fmt.Fprintf(&b, "\n  %s: %s   (%s)", clean(q.Key), clean(q.Default), clean(q.Text))
		}
		doc.FootComment = b.String()
	}
	if len(doc.Content) == 0 { // yaml.v3 writes no comments of an empty mapping
		text := strings.TrimSuffix("# "+strings.ReplaceAll(doc.HeadComment+"\n"+doc.FootComment, "\n", "\n# "), "# ")
		_, err := io.WriteString(w, text+"\n{}\n")
		return err
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(doc); err != nil {
		return fmt.Errorf("write answers: %w", err)
	}
	return enc.Close()
}

// toYAML makes a node of a value, its fields in order, without those that are empty.
func toYAML(v reflect.Value) *yaml.Node {
	switch v.Kind() {
	case reflect.Struct:
		n := &yaml.Node{Kind: yaml.MappingNode}
		for f := range jsonFields(v.Type()) {
			if fv := v.Field(f.index); !fv.IsZero() {
				n.Content = append(n.Content, stringNode(f.name), toYAML(fv))
			}
		}
		return n
	case reflect.Map:
		n := &yaml.Node{Kind: yaml.MappingNode}
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			n.Content = append(n.Content, stringNode(k.String()), toYAML(v.MapIndex(k)))
		}
		return n
	case reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			n.Content = append(n.Content, toYAML(v.Index(i)))
		}
		return n
	case reflect.Bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: fmt.Sprint(v.Bool())}
	}
	return stringNode(v.String())
}

// stringNode is a text that is read again as the same text: quoted where it must be.
func stringNode(s string) *yaml.Node {
	n := new(yaml.Node)
	n.SetString(s)
	return n
}
