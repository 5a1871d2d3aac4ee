package docker

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/dentropy/dentropycloud/backup"
)

// The conditions of a dependency.
const (
	condStarted   = "started"
	condHealthy   = "healthy"
	condCompleted = "completed"
)

// serviceDependency is one entry of compose's label.
type serviceDependency struct{ service, condition string }

// parseDependsOn reads compose's label: "db:service_healthy:false,cache:service_started:true".
// Older versions write names only.
func parseDependsOn(label string) []serviceDependency {
	var out []serviceDependency
	for part := range strings.SplitSeq(label, ",") {
		f := strings.Split(strings.TrimSpace(part), ":")
		if f[0] == "" {
			continue
		}
		d := serviceDependency{service: f[0], condition: condStarted}
		if len(f) > 1 {
			switch f[1] {
			case "service_healthy":
				d.condition = condHealthy
			case "service_completed_successfully":
				d.condition = condCompleted
			}
		}
		out = append(out, d)
	}
	return out
}

// strength orders conditions: a container that depends on another in two ways waits for
// the stronger.
func strength(condition string) int {
	switch condition {
	case condCompleted:
		return 2
	case condHealthy:
		return 1
	}
	return 0
}

// addDependency adds one, or makes one that is there stronger.
func addDependency(c *backup.Container, on, condition string) {
	if on == c.Name {
		return
	}
	for i := range c.DependsOn {
		if d := &c.DependsOn[i]; d.Container == on {
			if strength(condition) > strength(d.Condition) {
				d.Condition = condition
			}
			return
		}
	}
	c.DependsOn = append(c.DependsOn, backup.Dependency{Container: on, Condition: condition})
}

// linkUp fills in who depends on whom, and sorts containers in the order in which they
// start. refs are the containers, by index, whose namespaces or volumes one uses or that
// it is linked to, by name. It returns warnings.
func linkUp(list []backup.Container, labels []map[string]string, refs [][]string) ([]backup.Container, []string) {
	var warnings []string
	byService := map[string][]string{}
	known := map[string]bool{}
	for i, c := range list {
		known[c.Name] = true
		if c.Service != "" {
			key := labels[i][labelProject] + "\x00" + c.Service
			byService[key] = append(byService[key], c.Name)
		}
	}
	for i := range list {
		c := &list[i]
		for _, d := range parseDependsOn(labels[i][labelDependsOn]) {
			for _, name := range byService[labels[i][labelProject]+"\x00"+d.service] {
				addDependency(c, name, d.condition)
			}
		}
		for _, name := range refs[i] {
			if !known[name] {
				warnings = append(warnings, fmt.Sprintf("%s uses the container %s, which is not part of this app", c.Name, name))
				continue
			}
			addDependency(c, name, condStarted)
		}
		slices.SortFunc(c.DependsOn, func(a, b backup.Dependency) int { return cmp.Compare(a.Container, b.Container) })
	}
	sorted, broken := startOrder(list)
	return sorted, append(warnings, broken...)
}

// startOrder sorts containers so that each comes after those that it depends on, and
// otherwise by service, number and name. A dependency that closes a circle is taken away,
// with a warning.
func startOrder(list []backup.Container) (sorted []backup.Container, warnings []string) {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b backup.Container) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(number(a.Name), number(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	index := map[string]int{}
	for i, c := range list {
		index[c.Name] = i
	}
	const (
		fresh = iota
		open
		done
	)
	state := make([]int, len(list))
	var visit func(i int)
	visit = func(i int) {
		state[i] = open
		c := &list[i]
		c.DependsOn = slices.DeleteFunc(slices.Clone(c.DependsOn), func(d backup.Dependency) bool {
			j, ok := index[d.Container]
			switch {
			case !ok:
				return true
			case state[j] == open:
				warnings = append(warnings, fmt.Sprintf("%s and %s depend on each other in a circle: %s starts first", c.Name, d.Container, c.Name))
				return true
			case state[j] == fresh:
				visit(j)
			}
			return false
		})
		state[i] = done
		sorted = append(sorted, *c)
	}
	for i := range list {
		if state[i] == fresh {
			visit(i)
		}
	}
	return sorted, warnings
}

// number is the number at the end of a replica's name, 0 where there is none.
func number(name string) int {
	i := strings.LastIndexAny(name, "-_")
	n, err := strconv.Atoi(name[i+1:])
	if err != nil {
		return 0
	}
	return n
}
