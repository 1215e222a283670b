package check

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// objects are what `kubectl apply -k` would send, by kind and name.
type objects struct {
	namespaces  map[string]*corev1.Namespace
	configs     map[string]*corev1.ConfigMap
	secrets     map[string]*corev1.Secret
	deployments map[string]*appsv1.Deployment
	budgets     map[string]*policyv1.PodDisruptionBudget
	scalers     map[string]*autoscalingv2.HorizontalPodAutoscaler
}

// checkKubernetes builds the kustomization in deploy/kubernetes, decodes what
// comes of it into the API's own types and checks what they say of each other.
func checkKubernetes(deploy string, img image, stages []string) error {
	dir := filepath.Join(deploy, "kubernetes")
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return err
	}
	text, err := built.AsYaml()
	if err != nil {
		return err
	}
	var p problems
	all := p.decode(text)
	p.allListed(dir)
	var ran, images []string
	for name, d := range all.deployments {
		stage, used := p.deployment(d, all, img)
		ran, images = append(ran, stage), append(images, used)
		if name != "leat-"+stage {
			p.add("Deployment %s runs the stage %q: want the name leat-%s", name, stage, stage)
		}
		if n := p.budgetsOf(d, all); n != 1 {
			p.add("Deployment %s: %d PodDisruptionBudgets select its pods, want 1", name, n)
		}
	}
	p.sameNames("stages in deploy/kubernetes", ran, stages)
	if slices.Sort(images); len(slices.Compact(slices.Clone(images))) != 1 {
		p.add("Deployments run different images: %v", images)
	}
	if d := all.deployments["leat-sources"]; d != nil && *d.Spec.Replicas < 2 {
		p.add("Deployment leat-sources has nobody to take over: want 2 replicas or more")
	}
	for name, h := range all.scalers {
		if all.deployments[h.Spec.ScaleTargetRef.Name] == nil || h.Spec.ScaleTargetRef.Kind != "Deployment" {
			p.add("HorizontalPodAutoscaler %s scales %s, which is not there", name, h.Spec.ScaleTargetRef.Name)
		}
		if h.Spec.MaxReplicas > partitions {
			p.add("HorizontalPodAutoscaler %s: more than %d replicas stand idle", name, partitions)
		}
	}
	p.pipeline(dir, all)
	return p.err()
}

// allListed finds manifests that the kustomization forgets.
func (p *problems) allListed(dir string) {
	k, err := os.ReadFile(filepath.Join(dir, "kustomization.yaml"))
	if err != nil {
		p.add("%w", err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.yaml"))
	for _, f := range files {
		if name := filepath.Base(f); name != "kustomization.yaml" && !strings.Contains(string(k), name) {
			p.add("kustomization.yaml does not name %s", name)
		}
	}
}

// decode decodes every document strictly: an unknown or doubled key, a value
// of the wrong type, a quantity that is none are errors.
func (p *problems) decode(text []byte) objects {
	all := objects{
		namespaces: map[string]*corev1.Namespace{}, configs: map[string]*corev1.ConfigMap{}, secrets: map[string]*corev1.Secret{},
		deployments: map[string]*appsv1.Deployment{}, budgets: map[string]*policyv1.PodDisruptionBudget{},
		scalers: map[string]*autoscalingv2.HorizontalPodAutoscaler{},
	}
	placed := map[string]string{} // namespaces
	for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
		var head struct {
			metav1.TypeMeta   `json:",inline"`
			metav1.ObjectMeta `json:"metadata"`
		}
		if err := yaml.Unmarshal(doc, &head); err != nil {
			p.add("%w", err)
			continue
		}
		var err error
		switch kind := head.APIVersion + " " + head.Kind; kind {
		case "v1 Namespace":
			err = strictly(doc, head.Name, all.namespaces)
		case "v1 ConfigMap":
			err = strictly(doc, head.Name, all.configs)
		case "v1 Secret":
			err = strictly(doc, head.Name, all.secrets)
		case "apps/v1 Deployment":
			err = strictly(doc, head.Name, all.deployments)
		case "policy/v1 PodDisruptionBudget":
			err = strictly(doc, head.Name, all.budgets)
		case "autoscaling/v2 HorizontalPodAutoscaler":
			err = strictly(doc, head.Name, all.scalers)
		default:
			err = fmt.Errorf("%q is not a kind that is checked: add it", kind)
		}
		if err != nil {
			p.add("%s %s: %w", head.Kind, head.Name, err)
		}
		if bad := validation.IsDNS1123Subdomain(head.Name); bad != nil {
			p.add("%s %q: %v", head.Kind, head.Name, bad)
		}
		if head.Kind != "Namespace" {
			placed[head.Kind+" "+head.Name] = head.Namespace
		}
	}
	for object, namespace := range placed {
		if all.namespaces[namespace] == nil {
			p.add("%s is in the namespace %q, which is not there", object, namespace)
		}
	}
	return all
}

func strictly[T any](doc []byte, name string, into map[string]*T) error {
	b, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		return err
	}
	v := new(T)
	strict, err := json.UnmarshalStrict(b, v) // as the API server does: upper and lower case count
	if err := errors.Join(append(strict, err)...); err != nil {
		return err
	}
	if into[name] != nil {
		return fmt.Errorf("is there twice")
	}
	into[name] = v
	return nil
}

// deployment checks one and returns the stage and the image that it runs.
func (p *problems) deployment(d *appsv1.Deployment, all objects, img image) (stage, used string) {
	bad := func(format string, args ...any) { p.add("Deployment "+d.Name+": "+format, args...) }
	pod := d.Spec.Template.Spec
	if d.Spec.Replicas == nil || *d.Spec.Replicas < 1 || *d.Spec.Replicas > partitions {
		bad("replicas: want 1 to %d", partitions)
	}
	if selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector); err != nil || !selector.Matches(labels.Set(d.Spec.Template.Labels)) {
		bad("its selector does not select its pods (%v)", err)
	}
	if pod.TerminationGracePeriodSeconds == nil {
		bad("terminationGracePeriodSeconds is missing")
	}
	if len(pod.Containers) != 1 {
		bad("%d containers, want 1", len(pod.Containers))
		return "", ""
	}
	c := pod.Containers[0]
	if stage = stageOf(c.Args); stage == "" || c.Command != nil {
		bad("command %v, args %v: want run --stages STAGE", c.Command, c.Args)
	}
	if !pinned(c.Image) {
		bad("image %q: name its version", c.Image)
	}
	for _, r := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		request, limit := c.Resources.Requests[r], c.Resources.Limits[r]
		if request.IsZero() || limit.IsZero() || request.Cmp(limit) > 0 {
			bad("resources: want a request of %s and a limit that is not below it", r)
		}
	}
	p.secured(d.Name, pod, c, img)
	p.mounts(d.Name, pod, c, all, img)
	for _, e := range c.EnvFrom {
		if e.SecretRef == nil || all.secrets[e.SecretRef.Name] == nil {
			bad("envFrom: there is no such Secret")
		}
	}
	for _, e := range c.Env {
		if f := e.ValueFrom; f != nil && f.SecretKeyRef != nil {
			if s := all.secrets[f.SecretKeyRef.Name]; s == nil || s.Data[f.SecretKeyRef.Key] == nil {
				bad("env %s: there is no key %s in a Secret %s", e.Name, f.SecretKeyRef.Key, f.SecretKeyRef.Name)
			}
		}
	}
	return stage, c.Image
}

// secured checks what the namespace's "restricted" standard asks for, and a
// root file system that cannot be written to.
func (p *problems) secured(name string, pod corev1.PodSpec, c corev1.Container, img image) {
	ps, cs := pod.SecurityContext, c.SecurityContext
	if ps == nil || cs == nil {
		p.add("Deployment %s: securityContext is missing", name)
		return
	}
	yes := func(b *bool) bool { return b != nil && *b }
	for what, ok := range map[string]bool{
		"runAsNonRoot":                            yes(ps.RunAsNonRoot),
		"the Dockerfile's USER as runAsUser":      ps.RunAsUser != nil && strconv.FormatInt(*ps.RunAsUser, 10) == img.user,
		"seccompProfile RuntimeDefault":           ps.SeccompProfile != nil && ps.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault,
		"readOnlyRootFilesystem":                  yes(cs.ReadOnlyRootFilesystem),
		"allowPrivilegeEscalation: false":         cs.AllowPrivilegeEscalation != nil && !*cs.AllowPrivilegeEscalation,
		"capabilities: {drop: [ALL]}":             cs.Capabilities != nil && slices.Contains(cs.Capabilities.Drop, "ALL"),
		"automountServiceAccountToken: false":     pod.AutomountServiceAccountToken != nil && !*pod.AutomountServiceAccountToken,
		"enableServiceLinks: false (it has none)": pod.EnableServiceLinks != nil && !*pod.EnableServiceLinks,
	} {
		if !ok {
			p.add("Deployment %s: want %s", name, what)
		}
	}
}

// mounts checks that volumes and mounts agree and that the configuration is
// where leat looks for it.
func (p *problems) mounts(name string, pod corev1.PodSpec, c corev1.Container, all objects, img image) {
	mounted := map[string]string{}
	for _, m := range c.VolumeMounts {
		mounted[m.Name] = m.MountPath
	}
	configured, kept := false, false
	for _, v := range pod.Volumes {
		at, ok := mounted[v.Name]
		if !ok {
			p.add("Deployment %s: volume %s is not mounted", name, v.Name)
		}
		delete(mounted, v.Name)
		switch {
		case v.ConfigMap != nil && all.configs[v.ConfigMap.Name] == nil:
			p.add("Deployment %s: volume %s: there is no ConfigMap %s", name, v.Name, v.ConfigMap.Name)
		case v.ConfigMap != nil:
			config := all.configs[v.ConfigMap.Name].Data["pipeline.yaml"]
			configured = configured || at == img.workdir && config != ""
			kept = kept || dataDir([]byte(config)) != "" && slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
				return m.MountPath == dataDir([]byte(config)) && !m.ReadOnly
			})
		case v.Secret != nil && all.secrets[v.Secret.SecretName] == nil:
			p.add("Deployment %s: volume %s: there is no Secret %s", name, v.Name, v.Secret.SecretName)
		}
	}
	for volume, at := range mounted {
		p.add("Deployment %s: at %s is mounted a volume %s, which is not there", name, at, volume)
	}
	if !kept {
		p.add("Deployment %s: no volume to write to is mounted at pipeline.yaml's data_dir", name)
	}
	if !configured {
		p.add("Deployment %s: no ConfigMap with pipeline.yaml at %s, where leat looks for it", name, img.workdir)
	}
}

// budgetsOf counts the PodDisruptionBudgets of a Deployment's pods.
func (p *problems) budgetsOf(d *appsv1.Deployment, all objects) (n int) {
	for name, b := range all.budgets {
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil {
			p.add("PodDisruptionBudget %s: %w", name, err)
		} else if selector.Matches(labels.Set(d.Spec.Template.Labels)) {
			n++
		}
	}
	return n
}

// pipeline checks that pipeline.yaml is given the variables and files it names.
func (p *problems) pipeline(dir string, all objects) {
	want, err := variables(filepath.Join(dir, "pipeline.yaml"))
	if err != nil {
		p.add("%w", err)
	}
	var have []string
	for _, s := range all.secrets {
		have = slices.AppendSeq(have, maps.Keys(s.Data))
	}
	p.sameNames("secret.env.example", have, want)
	for name, config := range all.configs {
		var pipeline any
		if err := yaml.Unmarshal([]byte(config.Data["pipeline.yaml"]), &pipeline); err != nil {
			p.add("ConfigMap %s: pipeline.yaml: %w", name, err)
		}
		p.files(pipeline, config.Data)
	}
}

// files checks that the files which the keys of a configuration name are there.
func (p *problems) files(v any, have map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if file, ok := value.(string); ok && strings.HasSuffix(key, "_file") && have[path.Base(file)] == "" {
				p.add("pipeline.yaml: %s: %s is in no ConfigMap", key, file)
			}
			p.files(value, have)
		}
	case []any:
		for _, value := range v {
			p.files(value, have)
		}
	}
}
