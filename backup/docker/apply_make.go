package docker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/dentropy/dentropycloud/internal/dockerengine"
)

// makeNetworks makes the networks that are not there.
func (r *restore) makeNetworks(ctx context.Context) error {
	made := map[string]bool{}
	for i := range r.d.Networks {
		np := &r.d.Networks[i]
		if !np.Make || made[np.Name] {
			continue
		}
		made[np.Name] = true
		if err := r.makeNetwork(ctx, &r.app.Networks[i], np); err != nil {
			return err
		}
	}
	return nil
}

// makeVolumes makes the volumes that are not there, and those that data waits in until
// it is exchanged.
func (r *restore) makeVolumes(ctx context.Context) error {
	for i := range r.d.Volumes {
		vp := &r.d.Volumes[i]
		if vp.Kind != backup.Named || !vp.Make && !vp.Swap {
			continue
		}
		v := &r.app.Volumes[i]
		opts := volume.CreateOptions{Name: vp.Name, Driver: vp.Driver, DriverOpts: v.Options, Labels: r.volumeLabels(v, vp)}
		if v.Kind == backup.Bind || v.Kind == backup.BindFile {
			opts.DriverOpts = nil
		}
		if vp.Asked {
			opts.DriverOpts = r.volumeAnswer(v).Options
		}
		if vp.Swap {
			opts = volume.CreateOptions{Name: vp.Name + ".pre-restore-" + r.c.op, Driver: "local", Labels: map[string]string{labelRestore: r.c.op}}
		}
		err := r.p.call(ctx, "make volume "+opts.Name, func(ctx context.Context, conn *dockerengine.Conn) error {
			// An engine gives back one that is there already, as if it had made it.
			if _, err := conn.VolumeInspect(ctx, opts.Name); err == nil {
				return &backup.Problem{Message: fmt.Sprintf("there is a volume %s by now", opts.Name), Hint: "plan again", Object: opts.Name}
			} else if !errdefs.IsNotFound(err) {
				return err
			}
			got, err := conn.VolumeCreate(ctx, opts)
			if err == nil && got.Labels[labelRestore] != r.c.op {
				err = fmt.Errorf("somebody else made the volume %s at the same time", opts.Name)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *restore) volumeAnswer(v *backup.Volume) backup.VolumeAnswer {
	return answerFor(r.plan.Answers, v)
}

// Compose's labels of a volume or network: its own key, and a hash of its settings.
const (
	labelComposeHash    = "com.docker.compose.config-hash"
	labelAnonymous      = "com.docker.volume.anonymous"
	labelComposeNetwork = "com.docker.compose.network"
)

// volumeLabels are those that it had, so that compose knows it again.
func (r *restore) volumeLabels(v *backup.Volume, vp *volumePlan) map[string]string {
	labels := r.relabel(v.Labels, vp.Name != v.Name || vp.ownOptions(r.d, v))
	delete(labels, labelAnonymous)
	if v.Kind == backup.Anonymous && r.d.Project != "" {
		labels[labelProject] = r.d.Project // it is the app's, and gets the app's next name
	}
	return labels
}

// relabel gives labels of something that compose made what fits its new name.
func (r *restore) relabel(was map[string]string, changed bool) map[string]string {
	labels := make(map[string]string, len(was)+1)
	for k, v := range was {
		labels[k] = v
	}
	if changed {
		delete(labels, labelComposeHash) // compose would want to make it again
	}
	if r.d.Project != "" && labels[labelProject] == r.d.OldProject {
		labels[labelProject] = r.d.Project
	}
	labels[labelRestore] = r.c.op
	return labels
}

// makeNetwork makes a network as it was.
func (r *restore) makeNetwork(ctx context.Context, n *backup.Network, np *networkPlan) error {
	s := object{}
	if len(n.Settings) > 0 {
		if err := json.Unmarshal(n.Settings, &s); err != nil {
			return fmt.Errorf("settings of network %q: %w", n.Name, err)
		}
	}
	s, err := canonical(s, fieldNames[network.Inspect]())
	if err != nil {
		return fmt.Errorf("settings of network %q: %w", n.Name, err)
	}
	for _, k := range shownOnly {
		delete(s, k)
	}
	var from struct{ Network string }
	if s.get("ConfigFrom", &from) == nil && from.Network == "" {
		delete(s, "ConfigFrom")
	}
	err = errors.Join(s.set("Name", np.Name), s.set("Driver", cmp.Or(s.text("Driver"), n.Driver, "bridge")),
		s.set("CheckDuplicate", true), s.set("Labels", r.relabel(n.Labels, np.Name != n.Name || np.Subnet != "")))
	if err == nil {
		err = editSubnet(s, np)
	}
	if err != nil {
		return fmt.Errorf("settings of network %q: %w", n.Name, err)
	}
	body, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return r.p.call(ctx, "make network "+np.Name, func(ctx context.Context, conn *dockerengine.Conn) error {
		return r.p.ask(ctx, conn, http.MethodPost, "/networks/create", url.Values{}, body, nil)
	})
}

// editSubnet sets another subnet, or lets the engine choose.
func editSubnet(s object, np *networkPlan) error {
	if np.Subnet == "" {
		return nil
	}
	ipam := object{}
	if err := s.get("IPAM", &ipam); err != nil {
		return err
	}
	delete(ipam, "Config")
	if np.Subnet != subnetAuto {
		if err := ipam.set("Config", []map[string]string{{"Subnet": np.Subnet}}); err != nil {
			return err
		}
	}
	return s.set("IPAM", ipam)
}
