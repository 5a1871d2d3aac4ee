package docker

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dentropy/dentropycloud/backup"
)

// questions are the choices that a user may want to make.
func (pl *planner) questions() {
	d := pl.d
	ask := func(topic, key, text, def, flag string) {
		pl.p.Questions = append(pl.p.Questions, backup.Question{Key: key, Topic: topic, Text: text, Default: def, Flag: flag})
	}
	ask("run", "name", "Name of the app", d.App, "--as "+d.App)
	if d.OldDir != "" {
		def := d.Dir
		if def == "" {
			def = "none"
		}
		ask("run", "project_dir", "Folder for the compose files, on the engine's host", def, "--project-dir "+def)
	}
	for i := range d.Volumes {
		v := &d.Volumes[i]
		was := pl.app.Volumes[i]
		switch {
		case v.Kind == backup.Tmpfs || v.Kind == backup.ProjectTree:
		case v.Kind == backup.Named && (v.Fill || v.Make):
			amount := ""
			if t := pl.m.Trees[v.ID]; t != nil && v.Fill {
				amount = ", " + backup.FormatBytes(t.Stored)
			}
			ask("store", "volumes."+v.ID+".name", fmt.Sprintf("Volume for %s%s (a name, or a /path)", pl.mountedAt(&was), amount), v.Name, "--volume "+v.ID+"=name:"+v.Name)
		case v.Fill:
			ask("store", "volumes."+v.ID+".path", "Folder for "+pl.mountedAt(&was)+", on the engine's host", v.Name, "--volume "+v.ID+"=path:"+v.Name)
		}
	}
	for i := range d.Containers {
		cp := &d.Containers[i]
		c := pl.container(cp.Was)
		labels, err := pl.settings[cp.Was].labels()
		if err != nil {
			continue // it was read before
		}
		for _, r := range routesIn(c, cp.changed(labels)) {
			hosts := strings.Join(r.hosts, ",")
			ask("route", "routes."+r.key()+".host", "Host names of "+r.key(), hosts, "--route "+r.key()+"="+hosts)
		}
	}
	for i := range d.Containers {
		pl.portQuestions(&d.Containers[i], ask)
	}
}

// portQuestions asks for the ports that a container publishes at fixed numbers.
func (pl *planner) portQuestions(cp *containerPlan, ask func(topic, key, text, def, flag string)) {
	host, err := pl.settings[cp.Was].typed()
	if err != nil {
		return
	}
	c := pl.container(cp.Was)
	for _, port := range sortedPorts(host.PortBindings) {
		bindings := make([]portBinding, 0, len(host.PortBindings[port]))
		for _, b := range host.PortBindings[port] {
			bindings = append(bindings, portBinding{IP: b.HostIP, Port: b.HostPort})
		}
		if changed, ok := cp.Ports[string(port)]; ok {
			bindings = changed
		}
		if len(bindings) == 0 || bindings[0].Port == "" || strings.Contains(bindings[0].Port, "-") {
			continue
		}
		b := bindings[0]
		def := b.Port
		if b.IP != "" && b.IP != "0.0.0.0" && b.IP != "::" {
			def = b.IP + ":" + b.Port
			if strings.Contains(b.IP, ":") {
				def = "[" + b.IP + "]:" + b.Port
			}
		}
		key := portKey(c, port)
		ask("route", "ports."+key, fmt.Sprintf("Port of the host for %s (a port, auto, none)", key), def, "--port "+key+"="+def)
	}
}

// mountedAt says what a volume is to the app.
func (pl *planner) mountedAt(v *backup.Volume) string {
	for _, c := range pl.app.Containers {
		for _, m := range c.Mounts {
			if m.Volume == v.ID {
				name := c.Service
				if name == "" {
					name = c.Name
				}
				return fmt.Sprintf("%s, %s", name, m.Target)
			}
		}
	}
	return v.ID
}

// steps say in words what will be done.
func (pl *planner) steps() {
	d := pl.d
	say := func(format string, args ...any) { pl.p.Steps = append(pl.p.Steps, fmt.Sprintf(format, args...)) }
	for _, im := range d.Images {
		name := strings.Join(im.Refs, ", ")
		if name == "" {
			name = im.ID
		}
		switch im.How {
		case imageInside:
			say("load the image %s from the archive", name)
		case imagePull:
			say("pull the image %s", im.Pull)
		}
	}
	for _, n := range d.Networks {
		if n.Make {
			say("make the network %s%s", n.Name, prefixed(", subnet ", n.Subnet))
		}
	}
	for _, v := range d.Volumes {
		what := "volume " + v.Name
		if v.Kind != backup.Named {
			what = v.Name
		}
		switch {
		case v.Fill && v.Kind == backup.ProjectTree && !v.Make:
			say("add the project's files to %s", v.Name)
		case v.Fill && v.Swap:
			say("restore the data of %s beside the %s that is here", v.ID, what)
		case v.Fill:
			say("restore the data of %s into the new %s", v.ID, what)
		case v.Make && v.Kind == backup.Named:
			say("make the volume %s, empty", v.Name)
		}
	}
	if pl.ans.Verify != verifyStream && slices.ContainsFunc(d.Volumes, func(v volumePlan) bool { return v.Fill }) {
		say("read what was written again, and hold it against the archive's hashes")
	}
	if len(d.Old) > 0 {
		say("stop and set aside %s", enumerate(d.Old, func(o oldPlan) string { return o.Name }))
	}
	for _, v := range d.Volumes {
		if v.Swap && v.Fill && v.Kind != backup.ProjectTree {
			say("exchange the data of %s; the old is kept for an undo", v.Name)
		}
	}
	for _, c := range d.Containers {
		verb := "make"
		if c.Start && !pl.ans.NoStart {
			verb = "make and start"
		}
		say("%s the container %s of %s", verb, c.Name, c.Image)
	}
	if d.Override {
		say("write %s/%s, which holds what differs from the compose file", d.Dir, overrideFile)
	}
	if len(pl.p.Hosts) > 0 && !pl.ans.NoProbe && !pl.ans.NoStart {
		say("ask %s until it answers; if it does not, take all of this back", enumerate(pl.p.Hosts, func(s string) string { return s }))
	}
}
