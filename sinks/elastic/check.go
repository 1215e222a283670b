package elastic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"leat"
)

// Check tries a cluster without changing anything in it: whether it answers,
// its version, the account's privileges, and, where it is there, the index. It
// returns every problem found, joined, each with a hint.
func Check(ctx context.Context, cfg Config, name string, generation int) error {
	x, err := newIndex(cfg, name, physical(name, generation), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer x.close()
	x.writable = true
	return x.Check(ctx)
}

// Check implements [leat.Checker]. That the index is not there yet is no problem.
func (x *Index) Check(ctx context.Context) error {
	var errs []error
	add := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("elasticsearch: %s: %w", what, err))
		}
	}
	var r *refusal
	// Nothing else can be asked of a cluster that does not answer or let in.
	if err := x.version(ctx); err != nil && (!errors.As(err, &r) || r.Status == http.StatusUnauthorized) {
		add("connect", err)
		return errs[0]
	}
	add("privileges", x.privileges(ctx))
	_, err := x.inspect(ctx, x.target)
	if err == nil {
		err = x.blocked(ctx)
		if x.writable { // a reader may not ask for it
			err = errors.Join(err, x.health(ctx))
		}
		add("index "+x.target, err)
	} else if !errors.Is(err, fs.ErrNotExist) {
		add("index "+x.target, err)
	}
	return errors.Join(errs...)
}

func (x *Index) version(ctx context.Context) error {
	var info struct{ Version struct{ Number string } }
	if err := x.call(ctx, http.MethodGet, "/", nil, &info); err != nil {
		return err
	}
	major, _, _ := strings.Cut(info.Version.Number, ".")
	if n, err := strconv.Atoi(major); err != nil || n < 8 {
		return leat.Hint(fmt.Errorf("it is version %s", info.Version.Number), "leat needs Elasticsearch 8")
	}
	return nil
}

// privileges finds those that the account lacks.
func (x *Index) privileges(ctx context.Context) error {
	cluster, index := []string{}, []string{"read", "view_index_metadata", "maintenance"}
	if x.writable {
		cluster, index = []string{"monitor", "manage_index_templates"}, []string{"read", "write", "manage"}
	}
	var answer struct {
		Cluster map[string]bool
		Index   map[string]map[string]bool
	}
	err := x.call(ctx, http.MethodPost, "/_security/user/_has_privileges", map[string]any{
		"cluster": cluster,
		"index":   []any{map[string]any{"names": []string{x.name, x.name + "-g1"}, "privileges": index}},
	}, &answer)
	var r *refusal
	if errors.As(err, &r) && r.Status < http.StatusInternalServerError && r.Status != http.StatusForbidden && r.Status != http.StatusUnauthorized {
		return nil // it has no security to ask
	}
	if err != nil {
		return err
	}
	var lacking []string
	for privilege, has := range answer.Cluster {
		if !has {
			lacking = append(lacking, privilege+" of the cluster")
		}
	}
	for name, privileges := range answer.Index {
		for privilege, has := range privileges {
			if !has {
				lacking = append(lacking, privilege+" of "+name)
			}
		}
	}
	if lacking == nil {
		return nil
	}
	slices.Sort(lacking)
	needs := readerNeeds
	if x.writable {
		needs = writerNeeds
	}
	return leat.Hint(fmt.Errorf("the account lacks %s", strings.Join(lacking, ", ")), "give it %s", strings.ReplaceAll(needs, "NAME", x.name))
}

// blocked finds what keeps the index from being written.
func (x *Index) blocked(ctx context.Context) error {
	var found map[string]struct {
		Settings map[string]json.RawMessage
	}
	err := x.call(ctx, http.MethodGet, path(x.target, "_settings", "index.blocks.*")+"?flat_settings=true", nil, &found)
	for _, index := range found {
		for setting, value := range index.Settings {
			if string(value) != `"true"` {
				continue
			}
			r := &refusal{Status: http.StatusForbidden, Type: "cluster_block_exception", Reason: setting + " is set"}
			if setting == "index.blocks.read_only_allow_delete" {
				r.Reason = "a disk is past the flood-stage watermark (" + setting + ")"
			}
			err = errors.Join(err, x.explain(r))
		}
	}
	return err
}

func (x *Index) health(ctx context.Context) error {
	var health struct{ Status string }
	err := x.call(ctx, http.MethodGet, path("_cluster", "health", x.target), nil, &health)
	if err == nil && health.Status == "red" {
		err = leat.Hint(errors.New("a part of it is not there (red)"), "start the nodes that are missing, or see GET _cluster/allocation/explain")
	}
	return err
}
