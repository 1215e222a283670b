package check

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

const repository = "../.."

// program builds leat once and returns its path.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "leat-check-")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "leat")
	cmd := exec.Command("go", "build", "-trimpath", "-o", file, "./cmd/leat")
	cmd.Dir = repository
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return file, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if file, err := program(); err == nil {
		os.RemoveAll(filepath.Dir(file))
	}
	os.Exit(code)
}

// stages asks the program for its stages.
func stages(t *testing.T) []string {
	t.Helper()
	leat, err := program()
	if err != nil {
		t.Fatal(err)
	}
	help, err := exec.Command(leat, "help", "run").Output()
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`--stages runs some of its stages only: (.*)\.`).FindSubmatch(help)
	if m == nil {
		t.Fatalf("`leat help run` does not list the stages:\n%s", help)
	}
	names := strings.Split(string(m[1]), ", ")
	if len(names) < 3 {
		t.Fatalf("stages %q", names)
	}
	return names
}

// tree copies deploy/ with what an operator puts into it.
func tree(t *testing.T) (root, deploy string) {
	t.Helper()
	root, err := filepath.Abs(repository)
	if err != nil {
		t.Fatal(err)
	}
	deploy = filepath.Join(t.TempDir(), "deploy")
	for _, part := range []string{"Dockerfile", "Dockerfile.dockerignore", "compose", "kubernetes"} {
		copyAll(t, filepath.Join(root, "deploy", part), filepath.Join(deploy, part))
	}
	k := filepath.Join(deploy, "kubernetes")
	copyAll(t, filepath.Join(k, "secret.env.example"), filepath.Join(k, "secret.env"))
	write(t, filepath.Join(k, "ca.crt"), "certificates in PEM\n")
	return root, deploy
}

func copyAll(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil {
			write(t, to+strings.TrimPrefix(path, from), string(b))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// edit replaces old, which has to be there, everywhere in a file.
func edit(t *testing.T, file, old, new string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), old) {
		t.Fatalf("%s does not hold %q", file, old)
	}
	write(t, file, strings.ReplaceAll(string(b), old, new))
}

func TestDockerfile(t *testing.T) {
	root, deploy := tree(t)
	img, err := checkDockerfile(root, deploy)
	if err != nil {
		t.Error(err)
	}
	if img.workdir == "" {
		t.Error("no WORKDIR: leat looks for pipeline.yaml there")
	}
}

func TestCompose(t *testing.T) {
	root, deploy := tree(t)
	img, err := checkDockerfile(root, deploy)
	if err := errors.Join(err, checkCompose(deploy, img, stages(t))); err != nil {
		t.Error(err)
	}
}

func TestKubernetes(t *testing.T) {
	root, deploy := tree(t)
	img, err := checkDockerfile(root, deploy)
	if err := errors.Join(err, checkKubernetes(deploy, img, stages(t))); err != nil {
		t.Error(err)
	}
	withScaler(t, deploy)
	if err := checkKubernetes(deploy, img, stages(t)); err != nil {
		t.Errorf("with hpa.yaml: %v", err)
	}
}

func withScaler(t *testing.T, deploy string) {
	edit(t, filepath.Join(deploy, "kubernetes/kustomization.yaml"), "#  - hpa.yaml", "  - hpa.yaml")
}

// Each check finds the mistake that it is there for.
func TestMistakes(t *testing.T) {
	names := stages(t)
	root, deploy := tree(t)
	img, err := checkDockerfile(root, deploy)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ file, old, new, want string }{
		{"Dockerfile", "FROM debian:12.12-slim\n", "FROM debian\n", "name its version"},
		{"Dockerfile", "golang:1.26.8-bookworm", "golang:latest", "name its version"},
		{"Dockerfile", "USER 10001:10001", "USER leat", "by a number"},
		{"Dockerfile", "USER 10001:10001\n", "", "by a number"},
		{"Dockerfile", `ENTRYPOINT ["leat"]`, "ENTRYPOINT leat", "a shell between"},
		{"Dockerfile", "--from=model", "--from=models", "no stage before"},
		{"Dockerfile", "COPY scripts/model ", "COPY scripts/models ", "no such file"},
		{"Dockerfile", "ENV LEAT_CACHE=/opt/leat", "ENV MYSQL_PASSWORD=x", "no secrets"},
		{"Dockerfile", "WORKDIR /src", "WORKDIRS /src", "unknown instruction"},
		{"Dockerfile", "COPY --from=build", "COPY --form=build", "unknown flag"},
		{"Dockerfile.dockerignore", "!chunker\n", "", "leaves out chunker"},
		{"Dockerfile.dockerignore", "!Makefile\n", "", "leaves it out"},

		{"compose/compose.yaml", "restart: unless-stopped", "restarts: unless-stopped", "restarts"},
		{"compose/compose.yaml", "start_period: 60s", "start_period: soon", "soon"},
		{"compose/compose.yaml", "127.0.0.1:9200:", "9200:", "to the network"},
		{"compose/compose.yaml", "mysql:9.7", "mysql:latest", "name its version"},
		{"compose/compose.yaml", "--stages, chunker", "--stages, chunk", "chunk should not be there"},
		{"compose/compose.yaml", "kafka: {condition", "kafkas: {condition", "kafkas"},
		{"compose/compose.yaml", "./mysql-accounts.sh", "./mysql-account.sh", "no such file"},
		{"compose/compose.yaml", "    LEAT_S3_SECRET_KEY: ${LEAT_S3_SECRET_KEY:?}\n    LEAT", "    LEAT", "LEAT_S3_SECRET_KEY is missing"},
		{"compose/compose.yaml", "pipeline.yaml:/etc/leat/", "pipeline.yaml:/etc/", "not mounted where leat looks"},
		{"compose/compose.yaml", "leat-data:/var/lib/leat", "leat-data:/var/lib/leat:ro", "data_dir"},
		{"compose/compose.yaml", "[CMD, mc, ready, local]", "[NONE]", "healthcheck"},
		{"compose/compose.yaml", "deploy/Dockerfile", "Dockerfile", "no such file"},
		{"compose/.env.example", "ELASTIC_PASSWORD=", "ELASTIC_PASSWORT=", "ELASTIC_PASSWORD is missing"},
		{"compose/pipeline.yaml", "kafka:9092", "localhost:9092", "no service"},

		{"kubernetes/stage.yaml", "readOnly: true", "readonly: true", "readonly"},
		{"kubernetes/stage.yaml", "terminationGracePeriodSeconds: 30", "terminationGracePeriodSeconds: soon", "cannot unmarshal string"},
		{"kubernetes/stage.yaml", "      terminationGracePeriodSeconds: 30\n", "", "terminationGracePeriodSeconds"},
		{"kubernetes/stage.yaml", "secretRef: {name: leat-secrets}", "secretRef: {name: leat-secret}", "no such Secret"},
		{"kubernetes/stage.yaml", "configMap: {name: leat-config}", "configMap: {name: leat}", "no ConfigMap leat"},
		{"kubernetes/stage.yaml", "{name: tmp, mountPath", "{name: temp, mountPath", "is not mounted"},
		{"kubernetes/stage.yaml", "mountPath: /etc/leat", "mountPath: /etc", "where leat looks"},
		{"kubernetes/stage.yaml", "mountPath: /var/lib/leat", "mountPath: /var/lib", "data_dir"},
		{"kubernetes/stage.yaml", "runAsUser: 10001", "runAsUser: 1000", "USER"},
		{"kubernetes/stage.yaml", "drop: [ALL]", "drop: [CHOWN]", "drop: [ALL]"},
		{"kubernetes/chunker.yaml", "cpu: 250m", "cpu: quarter", "quantit"},
		{"kubernetes/chunker.yaml", "memory: 512Mi", "memory: 128Mi", "not below"},
		{"kubernetes/chunker.yaml", "--stages, chunker", "--stages, embedder", "chunker is missing"},
		{"kubernetes/chunker.yaml", "matchLabels: {app.kubernetes.io/name: leat, ", "matchLabels: {app.kubernetes.io/name: kelp, ", "does not select its pods"},
		{"kubernetes/chunker.yaml", "kind: PodDisruptionBudget", "kind: PodDisruptionBudgets", "not a kind that is checked"},
		{"kubernetes/sources.yaml", "replicas: 2", "replicas: 1", "nobody to take over"},
		{"kubernetes/embedder.yaml", "replicas: 3", "replicas: 13", "1 to 12"},
		{"kubernetes/hpa.yaml", "maxReplicas: 12", "maxReplicas: 24", "stand idle"},
		{"kubernetes/hpa.yaml", "name: leat-embedder}", "name: leat-embed}", "not there"},
		{"kubernetes/hpa.yaml", "Utilization, averageUtilization: 70", "Utilization, averageUtilisation: 70", "averageUtilisation"},
		{"kubernetes/kustomization.yaml", "  - chunker.yaml\n", "", "does not name chunker.yaml"},
		{"kubernetes/kustomization.yaml", "newTag: 0.1.0", "newTag: latest", "name its version"},
		{"kubernetes/kustomization.yaml", "[pipeline.yaml, ca.crt]", "[pipeline.yaml]", "is in no ConfigMap"},
		{"kubernetes/kustomization.yaml", "  - namespace.yaml\n", "", `namespace "leat", which is not there`},
		{"kubernetes/kustomization.yaml", "patches:\n", `patches:
  - target: {kind: Deployment, name: leat-chunker}
    patch: '[{"op": "replace", "path": "/spec/template/spec/containers/0/name", "value": "other"}]'
`, "2 containers"},
		{"kubernetes/secret.env", "LEAT_MILVUS_PASSWORD", "LEAT_MILVUS_TOKEN", "LEAT_MILVUS_PASSWORD is missing"},
	} {
		t.Run(tt.file+" "+tt.new, func(t *testing.T) {
			t.Parallel()
			root, deploy := tree(t)
			withScaler(t, deploy)
			edit(t, filepath.Join(deploy, tt.file), tt.old, tt.new)
			var err error
			switch dir, _, _ := strings.Cut(tt.file, "/"); dir {
			case "compose":
				err = checkCompose(deploy, img, names)
			case "kubernetes":
				err = checkKubernetes(deploy, img, names)
			default:
				_, err = checkDockerfile(root, deploy)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// `leat validate` accepts every pipeline.yaml that is deployed.
func TestPipelines(t *testing.T) {
	leat, err := program()
	if err != nil {
		t.Fatal(err)
	}
	_, deploy := tree(t)
	for _, name := range []string{"compose", "kubernetes"} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(deploy, name, "pipeline.yaml")
			names, err := variables(file)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(leat, "validate", "--config", file)
			for _, n := range names {
				cmd.Env = append(cmd.Env, n+"=anything")
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// Scripts are what bash can read, JSON is JSON, and docs/operations.md shows the
// privileges that are deployed.
func TestScriptsAndPrivileges(t *testing.T) {
	manual, err := os.ReadFile(filepath.Join(repository, "docs/operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../compose/*")
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	for _, file := range files {
		switch ext := filepath.Ext(file); ext {
		case ".sh":
			seen = append(seen, ext)
			if out, err := exec.Command("bash", "-n", file).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", file, err, out)
			}
		case ".json":
			seen = append(seen, ext)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !json.Valid(b) {
				t.Errorf("%s is not JSON", file)
			}
			if !strings.Contains(string(manual), string(b)) {
				t.Errorf("docs/operations.md does not show what is in %s", file)
			}
		}
	}
	if !slices.Contains(seen, ".sh") || !slices.Contains(seen, ".json") {
		t.Errorf("found only %v", seen)
	}
}
