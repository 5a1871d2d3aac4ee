package backup

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// jsonText is a string value of a JSON document.
type jsonText struct {
	// Path are the keys that lead to it; indexes of arrays are left out. It is not to be
	// kept.
	Path []string
	// Element says that it is an element of an array; Before is then the element before
	// it, "" where that is none or no string.
	Element bool
	Before  string
	Text    string
}

// mapJSON changes the string values of a JSON document; keys, numbers and the order of all
// stay. What is no JSON comes back unchanged: it cannot become part of an archive, since
// nothing marshals it.
func mapJSON(raw json.RawMessage, fn func(jsonText) string) json.RawMessage {
	if !json.Valid(raw) {
		return raw
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	w := &jsonWriter{fn: fn}
	w.out.Grow(len(raw) + len(raw)/8)
	for {
		tok, err := dec.Token()
		if err != nil { // the end: it is valid
			return w.out.Bytes()
		}
		w.token(tok)
	}
}

// jsonWriter writes tokens as compact JSON.
type jsonWriter struct {
	fn    func(jsonText) string
	out   bytes.Buffer
	stack []openJSON
	path  []string
}

// openJSON is one open object or array.
type openJSON struct {
	array  bool
	n      int    // values so far; in an object, pairs
	key    bool   // a key has come, its value has not
	before string // the last element
}

func (w *jsonWriter) token(tok json.Token) {
	top := w.top()
	switch t := tok.(type) {
	case json.Delim:
		if t == '}' || t == ']' {
			w.out.WriteByte(byte(t))
			w.stack = w.stack[:len(w.stack)-1]
			w.done("")
			return
		}
		w.comma()
		w.out.WriteByte(byte(t))
		w.stack = append(w.stack, openJSON{array: t == '['})
	case string:
		w.comma()
		if top != nil && !top.array && !top.key {
			w.text(t)
			w.out.WriteByte(':')
			top.key = true
			w.path = append(w.path, t)
			return
		}
		jt := jsonText{Path: w.path, Text: t}
		if top != nil && top.array {
			jt.Element, jt.Before = true, top.before
		}
		w.text(w.fn(jt))
		w.done(t)
	case json.Number:
		w.comma()
		w.out.WriteString(t.String())
		w.done("")
	case bool:
		w.comma()
		w.out.WriteString(strconv.FormatBool(t))
		w.done("")
	default:
		w.comma()
		w.out.WriteString("null")
		w.done("")
	}
}

func (w *jsonWriter) top() *openJSON {
	if len(w.stack) == 0 {
		return nil
	}
	return &w.stack[len(w.stack)-1]
}

// comma parts a key or an element from the one before it.
func (w *jsonWriter) comma() {
	top := w.top()
	if top == nil || top.key {
		return
	}
	if top.n > 0 {
		w.out.WriteByte(',')
	}
	top.n++
}

// done ends a value; text is the one that was read, if it was a string.
func (w *jsonWriter) done(text string) {
	top := w.top()
	if top == nil {
		return
	}
	top.before = text
	if top.key {
		top.key = false
		w.path = w.path[:len(w.path)-1]
	}
}

func (w *jsonWriter) text(s string) {
	b, err := marshalPlain(s)
	if err != nil {
		b = []byte(`""`) // a string always marshals
	}
	w.out.Write(b)
}

// marshalPlain is json.Marshal that leaves <, > and & as they are.
func marshalPlain(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}
