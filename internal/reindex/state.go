// Package reindex keeps account of a pipeline's generations: which there are,
// what each is made with and which one is live. docs/adr/009-generations.md
// tells how they come and go.
package reindex

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"leat"
)

// Phase of a generation.
type Phase string

// A generation is fed in each of them but the last.
const (
	Building Phase = "building" // it catches up; no alias has led to it yet
	Ready    Phase = "ready"    // it is live, or was
	Dropping Phase = "dropping" // nothing may use it any more
)

// Settings are what makes an index: where they are equal, a document becomes
// the same chunks and vectors.
type Settings struct {
	TargetTokens  int        `json:"target_tokens"` // of a chunk
	MaxTokens     int        `json:"max_tokens"`    // of a chunk
	Rules         int        `json:"rules"`         // by which documents are cut: chunker.Rules
	Model         leat.Model `json:"model"`
	PassagePrefix string     `json:"passage_prefix,omitempty"`
}

// Difference says, for people, in what s differs from other; "" if in nothing.
func (s Settings) Difference(other Settings) string {
	switch {
	case s.Model.Name != other.Model.Name || s.Model.Dimension != other.Model.Dimension:
		return fmt.Sprintf("the model %s (%d dimensions), not %s (%d)",
			s.Model.Name, s.Model.Dimension, other.Model.Name, other.Model.Dimension)
	case s.PassagePrefix != other.PassagePrefix:
		return fmt.Sprintf("the passage_prefix %q, not %q", s.PassagePrefix, other.PassagePrefix)
	case s.TargetTokens != other.TargetTokens || s.MaxTokens != other.MaxTokens:
		return fmt.Sprintf("chunks of %d to %d tokens, not of %d to %d", s.TargetTokens, s.MaxTokens, other.TargetTokens, other.MaxTokens)
	case s.Rules != other.Rules:
		return fmt.Sprintf("chunks cut by rules %d, not %d", s.Rules, other.Rules)
	case s != other:
		return fmt.Sprintf("a model that reads %d tokens, not %d", s.Model.MaxTokens, other.Model.MaxTokens)
	}
	return ""
}

// Generation is one set of topics, groups and indexes.
type Generation struct {
	Number   int       `json:"number"`
	Phase    Phase     `json:"phase"`
	Settings Settings  `json:"settings"`
	Started  time.Time `json:"started"`
	Live     time.Time `json:"live,omitzero"` // when the aliases last moved to it
	// Config is what pipeline.yaml held of chunker and embedder when it began,
	// without secrets: it is made with these even where pipeline.yaml has changed.
	Config json.RawMessage `json:"config"`
}

// State of all generations, at one revision.
type State struct {
	Revision    int64        `json:"revision"`
	Live        int          `json:"live"`                // the number that the aliases lead to
	Switching   int          `json:"switching,omitempty"` // the aliases are being moved to this one
	Generations []Generation `json:"generations"`         // by number
	Last        int          `json:"last"`                // the highest number that ever was
	// Reread counts, by source, how often it was asked to be read again from its
	// beginning.
	Reread map[string]int64 `json:"reread,omitempty"`
}

// Find returns generation n, nil if there is none.
func (s State) Find(n int) *Generation {
	i := slices.IndexFunc(s.Generations, func(g Generation) bool { return g.Number == n })
	if i < 0 {
		return nil
	}
	return &s.Generations[i]
}

// Building returns the generation that is being built, nil if none is.
func (s State) Building() *Generation {
	i := slices.IndexFunc(s.Generations, func(g Generation) bool { return g.Phase == Building })
	if i < 0 {
		return nil
	}
	return &s.Generations[i]
}

// Former returns the generation that was live before the one that is, nil if
// none is kept.
func (s State) Former() (former *Generation) {
	for i := range s.Generations {
		g := &s.Generations[i]
		if g.Phase == Ready && g.Number != s.Live && (former == nil || g.Live.After(former.Live)) {
			former = g
		}
	}
	return former
}

// Fed lists the generations that changes flow into.
func (s State) Fed() []Generation {
	var fed []Generation
	for _, g := range s.Generations {
		if g.Phase != Dropping {
			fed = append(fed, g)
		}
	}
	return fed
}

// Fitting returns a fed generation with the settings, the live one first; nil
// if there is none.
func (s State) Fitting(settings Settings) *Generation {
	if g := s.Find(s.Live); g != nil && g.Settings == settings {
		return g
	}
	for _, g := range s.Fed() {
		if g.Settings == settings {
			return &g
		}
	}
	return nil
}

// begin adds a generation.
func (s *State) begin(n int, phase Phase, settings Settings, config json.RawMessage) {
	now := time.Now().UTC()
	g := Generation{Number: n, Phase: phase, Settings: settings, Started: now, Config: config}
	if phase == Ready {
		g.Live = now
	}
	s.Last = max(s.Last, n)
	s.Generations = append(s.Generations, g)
	slices.SortFunc(s.Generations, func(a, b Generation) int { return a.Number - b.Number })
}

// First is the state of a pipeline that has one generation, n, and no record of it.
func First(n int, settings Settings, config json.RawMessage) State {
	s := State{Live: n}
	s.begin(n, Ready, settings, config)
	return s
}

// Begin adds the next generation, to be built, and returns its number.
func (s *State) Begin(settings Settings, config json.RawMessage) int {
	s.begin(s.Last+1, Building, settings, config)
	return s.Last
}

// clone copies what a change may change.
func (s State) clone() State {
	s.Generations = slices.Clone(s.Generations)
	reread := make(map[string]int64, len(s.Reread))
	for name, n := range s.Reread {
		reread[name] = n
	}
	s.Reread = reread
	return s
}
