package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/dentropy/dentropycloud/backup"
)

// Labels that say how a container comes to rest.
const (
	labelMode = "dentropy.backup.mode"
	labelPre  = "dentropy.backup.pre"
	labelPost = "dentropy.backup.post"
	labelUser = "dentropy.backup.user"

	offen            = "docker-volume-backup."
	labelOffenStop   = offen + "stop-during-backup"
	labelOffenNoBack = offen + "stop-during-backup-no-restart"
)

// offenPre and offenPost are the hooks of docker-volume-backup, in the order in which it
// runs them. Only archive-pre comes before containers stop, and all but it when they
// run again.
var (
	offenPre  = []string{"archive-pre"}
	offenPost = []string{"archive-post", "process-pre", "process-post", "copy-pre", "copy-post"}
)

// quiesceOf reads from a container's labels how it comes to rest.
func quiesceOf(labels map[string]string) (backup.Quiesce, error) {
	q := backup.Quiesce{Mode: backup.Stop, Why: "the default"}
	if err := offenLabels(&q, labels); err != nil {
		return q, err
	}
	user := labels[labelUser]
	for _, h := range []struct {
		label string
		to    *[]backup.Hook
	}{{labelPre, &q.Pre}, {labelPost, &q.Post}} {
		if text := labels[h.label]; strings.TrimSpace(text) != "" {
			*h.to = append(*h.to, backup.Hook{Command: hookCommand(text), User: user, Label: h.label})
		}
	}
	mode, ok := labels[labelMode]
	if !ok {
		return q, nil
	}
	q.Why = "label " + labelMode
	switch m := backup.Mode(strings.ToLower(strings.TrimSpace(mode))); m {
	case backup.Stop, backup.Pause, backup.Hot:
		q.Mode = m
	default:
		return q, fmt.Errorf("label %s is %q: want stop, pause or hot", labelMode, mode)
	}
	return q, nil
}

// offenLabels reads the labels of docker-volume-backup.
func offenLabels(q *backup.Quiesce, labels map[string]string) error {
	stop, noBack := offenTrue(labels, labelOffenStop), offenTrue(labels, labelOffenNoBack)
	for _, h := range []struct {
		names []string
		to    *[]backup.Hook
	}{{offenPre, &q.Pre}, {offenPost, &q.Post}} {
		for _, name := range h.names {
			label := offen + name
			text := labels[label]
			if strings.TrimSpace(text) == "" {
				continue
			}
			words, err := splitWords(text)
			if err != nil {
				return fmt.Errorf("label %s: %w", label, err)
			}
			*h.to = append(*h.to, backup.Hook{Command: words, User: labels[label+".user"], Label: label})
		}
	}
	switch {
	case stop:
		q.Why = "label " + labelOffenStop
	case noBack:
		q.Why, q.NoRestart = "label "+labelOffenNoBack, true
	case len(q.Pre)+len(q.Post) > 0:
		// There a container is stopped only where a label says so: its hooks are there
		// because it runs.
		q.Mode, q.Why = backup.Hot, "hooks of docker-volume-backup and no label to stop it"
	}
	return nil
}

// offenTrue reports whether a label that may hold the name of a schedule is set.
func offenTrue(labels map[string]string, label string) bool {
	v := strings.TrimSpace(labels[label])
	return v != "" && !strings.EqualFold(v, "false")
}

// hookCommand is the command of a hook: the words of a JSON array, or the text for a
// shell.
func hookCommand(text string) []string {
	var words []string
	if strings.HasPrefix(strings.TrimSpace(text), "[") && json.Unmarshal([]byte(text), &words) == nil && len(words) > 0 {
		return words
	}
	return []string{"/bin/sh", "-c", text}
}

// splitWords splits a command line as a shell does, with quotes and backslashes, and
// expands nothing.
func splitWords(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	open, quote := false, byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quote == '\'' && c != '\'', quote == '"' && c != '"' && c != '\\':
			word.WriteByte(c)
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\':
			if i++; i == len(s) {
				return nil, errors.New("a backslash ends the command")
			}
			if quote == '"' && !strings.ContainsRune("\\\"$`", rune(s[i])) {
				word.WriteByte('\\')
			}
			word.WriteByte(s[i])
			open = true
		case c == '\'' || c == '"':
			quote, open = c, true
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			if open {
				words = append(words, word.String())
				word.Reset()
				open = false
			}
		default:
			word.WriteByte(c)
			open = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quote %q is not closed", quote)
	}
	if open {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, errors.New("the command is empty")
	}
	return words, nil
}
