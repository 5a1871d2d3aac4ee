package backuptest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
)

// App is an app on an Engine.
type App struct {
	Name string
	// Containers in the order in which they start.
	Containers []Container
}

// Container is one container of an App.
type Container struct {
	Name    string
	Running bool
	Env     map[string]string `json:",omitempty"`
	Volumes []string          `json:",omitempty"`
}

// Files are the files of a volume by path.
type Files map[string]string

// world is what an Engine holds.
type world struct {
	Apps    map[string]App
	Volumes map[string]Files
	// Transit holds data on its way by operation and volume.
	Transit map[string]map[string]Files
}

// Engine runs apps, as a Docker Engine would. All that it holds is in a file: each
// change is there when the call returns. Several processes may use one, not at the
// same time.
type Engine struct {
	path string
	mu   sync.Mutex // guards the file
}

// NewEngine gives the engine in a file, which need not be there.
func NewEngine(path string) *Engine { return &Engine{path: path} }

// change reads, changes and writes what there is.
func (e *Engine) change(f func(*world) error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	w := world{Apps: map[string]App{}, Volumes: map[string]Files{}, Transit: map[string]map[string]Files{}}
	b, err := os.ReadFile(e.path)
	if err == nil {
		err = json.Unmarshal(b, &w)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read engine: %w", err)
	}
	if err := f(&w); err != nil {
		return err
	}
	if b, err = json.Marshal(w); err != nil {
		return err
	}
	// a new file each time, so that a killed process leaves the old or the new one
	if err := os.WriteFile(e.path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(e.path+".new", e.path)
}

// Add puts an app and its volumes there.
func (e *Engine) Add(app App, volumes map[string]Files) error {
	return e.change(func(w *world) error {
		w.Apps[app.Name] = app
		maps.Copy(w.Volumes, volumes)
		return nil
	})
}

// Remove takes an app and its volumes away.
func (e *Engine) Remove(name string) error {
	return e.change(func(w *world) error {
		for _, c := range w.Apps[name].Containers {
			for _, v := range c.Volumes {
				delete(w.Volumes, v)
			}
		}
		delete(w.Apps, name)
		return nil
	})
}

// App gives an app as it is now.
func (e *Engine) App(name string) (App, error) {
	var app App
	err := e.change(func(w *world) error {
		a, ok := w.Apps[name]
		if !ok {
			return fmt.Errorf("app %q: %w", name, fs.ErrNotExist)
		}
		app = a
		return nil
	})
	return app, err
}

// Running are the names of an app's containers that run, sorted.
func (e *Engine) Running(name string) ([]string, error) {
	app, err := e.App(name)
	var out []string
	for _, c := range app.Containers {
		if c.Running {
			out = append(out, c.Name)
		}
	}
	slices.Sort(out)
	return out, err
}

// Files gives a volume as it is now; nil where there is none.
func (e *Engine) Files(volume string) (Files, error) {
	var out Files
	err := e.change(func(w *world) error { out = w.Volumes[volume]; return nil })
	return out, err
}

// Write puts a file into a volume.
func (e *Engine) Write(volume, path, text string) error {
	return e.change(func(w *world) error {
		if w.Volumes[volume] == nil {
			w.Volumes[volume] = Files{}
		}
		w.Volumes[volume][path] = text
		return nil
	})
}

// Volumes are the names of all volumes, sorted.
func (e *Engine) Volumes() ([]string, error) {
	var out []string
	err := e.change(func(w *world) error { out = slices.Sorted(maps.Keys(w.Volumes)); return nil })
	return out, err
}

// Transit are the operations that have data in transit, sorted.
func (e *Engine) Transit() ([]string, error) {
	var out []string
	err := e.change(func(w *world) error { out = slices.Sorted(maps.Keys(w.Transit)); return nil })
	return out, err
}

// setRunning starts or stops a container.
func (e *Engine) setRunning(app, container string, running bool) error {
	return e.change(func(w *world) error {
		for i := range w.Apps[app].Containers {
			if c := &w.Apps[app].Containers[i]; c.Name == container {
				c.Running = running
				return nil
			}
		}
		return fmt.Errorf("container %q of %q: %w", container, app, fs.ErrNotExist)
	})
}
