package docker

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/dentropy/dentropycloud/backup"
)

// composeOverride writes the adapted compose file: what has another name, port or label
// than in the project's own files. Compose reads it as a further -f.
func (r *restore) composeOverride() (string, error) {
	return composeOverride(r.app, r.d, r.plan.Answers)
}

// composeOverride is the text for an app and what becomes of it.
func composeOverride(app *backup.App, d *detail, ans backup.Answers) (string, error) {
	y := &yamlText{}
	y.line(0, "# What differs since dentropy restored this project. Use it as a further file:")
	y.line(0, "#   docker compose -f <compose file> -f %s up -d", overrideFile)
	y.line(0, "# or move what is in it into the compose file.")
	if d.Project != "" {
		y.line(0, "name: %s", quote(d.Project))
	}
	if err := y.services(app, d); err != nil {
		return "", err
	}
	y.volumes(app, d, ans)
	y.networks(app, d)
	return y.b.String(), nil
}

// yamlText is a text of YAML in the making.
type yamlText struct{ b strings.Builder }

func (y *yamlText) line(depth int, format string, args ...any) {
	y.b.WriteString(strings.Repeat("  ", depth))
	fmt.Fprintf(&y.b, format, args...)
	y.b.WriteByte('\n')
}

// quote writes a text as YAML, which takes JSON's strings. A dollar is doubled: compose
// would put a variable there.
func quote(s string) string {
	b, err := json.Marshal(strings.ReplaceAll(s, "$", "$$"))
	if err != nil {
		return `""` // a text always becomes JSON
	}
	return string(b)
}

// services writes the services that differ.
func (y *yamlText) services(app *backup.App, d *detail) error {
	head := false
	seen := map[string]bool{}
	for i := range d.Containers {
		cp := &d.Containers[i]
		c := &app.Containers[i]
		if c.Service == "" || seen[c.Service] {
			continue // replicas share what is written of the first
		}
		seen[c.Service] = true
		one := &yamlText{}
		if err := one.service(app, d, c, cp); err != nil {
			return err
		}
		if one.b.Len() == 0 {
			continue
		}
		if !head {
			y.line(0, "services:")
			head = true
		}
		y.line(1, "%s:", quote(c.Service))
		y.b.WriteString(one.b.String())
	}
	return nil
}

func (y *yamlText) service(app *backup.App, d *detail, c *backup.Container, cp *containerPlan) error {
	derived := strings.HasPrefix(c.Name, d.OldProject+"-"+c.Service+"-") || strings.HasPrefix(c.Name, d.OldProject+"_"+c.Service+"_")
	kept := derived && cp.Name == d.Project+strings.TrimPrefix(c.Name, d.OldProject)
	if cp.Name != c.Name && !kept {
		y.line(2, "container_name: %s", quote(cp.Name))
	}
	s, err := readSettings(c)
	if err != nil {
		return err
	}
	if len(cp.Ports) > 0 {
		if err := y.ports(s, cp); err != nil {
			return err
		}
	}
	var labels []string
	for _, k := range sortedKeys(cp.Set) {
		if !strings.HasPrefix(k, "com.docker.compose.") {
			labels = append(labels, quote(k)+": "+quote(cp.Set[k]))
		}
	}
	for _, k := range cp.Unset {
		if _, again := cp.Set[k]; !again {
			labels = append(labels, quote(k)+": !reset null")
		}
	}
	if len(labels) > 0 {
		y.line(2, "labels:")
		for _, l := range labels {
			y.line(3, "%s", l)
		}
	}
	y.mounts(app, d, c)
	return nil
}

// ports writes all published ports of a service: a list is added to otherwise.
func (y *yamlText) ports(s *settings, cp *containerPlan) error {
	all := map[string][]portBinding{}
	if err := s.host.get("PortBindings", &all); err != nil {
		return err
	}
	for port, list := range cp.Ports {
		all[port] = list
	}
	var lines []string
	for _, port := range sortedKeys(all) {
		target, proto, _ := strings.Cut(port, "/")
		for _, b := range all[port] {
			text := target
			if b.Port != "" {
				text = b.Port + ":" + target
			}
			if b.IP != "" {
				ip := b.IP
				if strings.Contains(ip, ":") {
					ip = "[" + ip + "]"
				}
				if b.Port == "" {
					text = ":" + target
				}
				text = ip + ":" + text
			}
			if proto != "" && proto != "tcp" {
				text += "/" + proto
			}
			lines = append(lines, quote(text))
		}
	}
	if len(lines) == 0 {
		y.line(2, "ports: !override []")
		return nil
	}
	y.line(2, "ports: !override")
	for _, l := range lines {
		y.line(3, "- %s", l)
	}
	return nil
}

// moved is where a path goes that is in the project's folder.
func moved(d *detail, p string) string {
	if d.OldDir == "" || d.Dir == "" || !within(d.OldDir, p) {
		return p
	}
	return d.Dir + strings.TrimPrefix(p, d.OldDir)
}

// networks writes the names and subnets of networks that differ.
func (y *yamlText) networks(app *backup.App, d *detail) {
	head := false
	for i := range d.Networks {
		n, was := &d.Networks[i], &app.Networks[i]
		key := was.Labels[labelComposeNetwork]
		named := n.Name != was.Name // compose may call it so by itself, or have a name of its own for it
		if key == "" || !named && (n.Subnet == "" || n.Subnet == subnetAuto) {
			continue
		}
		if !head {
			y.line(0, "networks:")
			head = true
		}
		y.line(1, "%s:", quote(key))
		if named {
			y.line(2, "name: %s", quote(n.Name))
		}
		if n.Subnet != "" && n.Subnet != subnetAuto {
			y.line(2, "ipam:")
			y.line(3, "config: !override")
			y.line(4, "- subnet: %s", quote(n.Subnet))
		}
	}
}
