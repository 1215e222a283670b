package check

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// checkCompose checks deploy/compose/compose.yaml by the schema of the Compose
// specification and what its services say of each other.
func checkCompose(deploy string, img image, stages []string) error {
	var p problems
	dir := filepath.Join(deploy, "compose")
	file := filepath.Join(dir, "compose.yaml")
	env, err := dotenv.Read(filepath.Join(dir, ".env.example"))
	if err != nil {
		return err
	}
	asked, err := variables(file)
	if err != nil {
		return err
	}
	given := make([]string, 0, len(env))
	for name := range env {
		given = append(given, name)
	}
	p.sameNames(".env.example", given, asked)
	project, err := loader.LoadWithContext(context.Background(), types.ConfigDetails{
		WorkingDir: dir, ConfigFiles: []types.ConfigFile{{Filename: file}}, Environment: types.Mapping(env),
	})
	if err != nil {
		return err
	}
	var ran, images []string
	for _, s := range project.Services {
		if !pinned(s.Image) {
			p.add("service %s: image %q: name its version", s.Name, s.Image)
		}
		for _, port := range s.Ports {
			if port.Published != "" && port.HostIP != "127.0.0.1" {
				p.add("service %s: port %s is published to the network: write 127.0.0.1: before it", s.Name, port.Published)
			}
		}
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil {
				p.add("service %s: %v", s.Name, err)
			}
		}
		for name, d := range s.DependsOn {
			if d.Condition == types.ServiceConditionHealthy && !watched(project.Services[name]) {
				p.add("service %s waits until %s is healthy, which has no healthcheck", s.Name, name)
			}
		}
		if stage := stageOf(s.Command); stage != "" {
			ran, images = append(ran, stage), append(images, s.Image)
			p.composeStage(s, img, dir)
		} else if !watched(s) && !strings.HasSuffix(s.Name, "-accounts") {
			p.add("service %s has no healthcheck", s.Name)
		}
	}
	p.sameNames("stages in compose.yaml", ran, stages)
	if slices.Sort(images); len(slices.Compact(images)) != 1 {
		p.add("stages run different images: %v", images)
	}
	hosts, err := pipelineHosts(filepath.Join(dir, "pipeline.yaml"))
	if err != nil {
		return err
	}
	for _, host := range hosts {
		if _, ok := project.Services[host]; !ok {
			p.add("pipeline.yaml names the host %s, which is no service", host)
		}
	}
	return p.err()
}

// watched reports whether a service has a healthcheck.
func watched(s types.ServiceConfig) bool {
	h := s.HealthCheck
	return h != nil && !h.Disable && len(h.Test) > 0 && h.Test[0] != "NONE"
}

// composeStage checks a service that runs a stage.
func (p *problems) composeStage(s types.ServiceConfig, img image, dir string) {
	if s.Build == nil {
		p.add("service %s: build is missing", s.Name)
	} else if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil {
		p.add("service %s: %w", s.Name, err)
	}
	if !s.ReadOnly || !slices.Contains(s.CapDrop, "ALL") {
		p.add("service %s: want read_only and cap_drop: [ALL]", s.Name)
	}
	var have []string
	for name := range s.Environment {
		have = append(have, name)
	}
	want, err := variables(filepath.Join(dir, "pipeline.yaml"))
	if err != nil {
		p.add("%w", err)
	}
	p.sameNames("environment of service "+s.Name, have, want)
	config, err := os.ReadFile(filepath.Join(dir, "pipeline.yaml"))
	if err != nil {
		p.add("%w", err)
	}
	configured, kept := false, false
	for _, v := range s.Volumes {
		configured = configured || v.Target == filepath.Join(img.workdir, "pipeline.yaml") && filepath.Base(v.Source) == "pipeline.yaml"
		kept = kept || v.Target == dataDir(config) && !v.ReadOnly
	}
	if !configured {
		p.add("service %s: pipeline.yaml is not mounted where leat looks for it", s.Name)
	}
	if !kept {
		p.add("service %s: no volume to write to is mounted at pipeline.yaml's data_dir", s.Name)
	}
}

var address = regexp.MustCompile(`[A-Za-z0-9.-]+:[0-9]{2,5}\b`)

// pipelineHosts are the hosts of the host:port addresses in a pipeline.yaml.
func pipelineHosts(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var hosts []string
	for _, a := range address.FindAllString(string(b), -1) {
		host, _, err := net.SplitHostPort(a)
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, host)
	}
	return hosts, nil
}
