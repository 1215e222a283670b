package chunker

import "math"

// The segmenter chooses where chunks end: the segmentation of the units whose
// cost is least, found by dynamic programming (Viterbi) over a window that
// slides along the document.
//
//	cost = Σ over chunks  sizeCost(tokens)  +  Σ over cuts  cutCost(gap)
//
// Structure and size are weighed against each other instead of the former
// being looked for in a window after the last cut, so nothing depends on where
// a chunk began: two versions of a document agree on the best segmentation
// again as soon as their texts agree for a chunk or two. A small share of the
// cut cost is drawn from a hash of the text around the gap. It breaks the ties
// of uniform text, where all segmentations are as good and an insertion would
// otherwise push every later cut along.
//
// Costs are integers, so that a comparison does not depend on what was summed
// before.
type segmenter struct {
	target, max int

	u    []unit  // not yet part of a chunk that was given out
	sum  []int   // sum[i]: tokens of u[:i]
	cost []int64 // cost[i]: of the best segmentation of u[:i], if a cut is before u[i]
	from []int   // where the last chunk of that segmentation begins
	look int     // tokens at the last attempt to agree
}

// Weights of the costs; docs/benchmarks.md tells how they were chosen.
const (
	sizeWeight = 500 // of a chunk of no size; of one at target: 0
	hashWeight = 300 // of the most unlucky hash
)

var cutCosts = [gaps]int64{
	gapInside:    3000,
	gapWord:      2500,
	gapClause:    1500,
	gapRow:       700,
	gapSentence:  500,
	gapLine:      100,
	gapParagraph: -400,
	gapSection:   -600,
}

const (
	afterHeading = 3000 // a heading belongs to what follows
	insideCode   = 300  // elements better kept whole
	never        = math.MaxInt64 / 2
)

// cutCost is of a cut before x, the unit that follows what the segmenter holds.
func (s *segmenter) cutCost(x *unit) int64 {
	after := &s.u[len(s.u)-1]
	c := cutCosts[x.before]
	if x.level > 0 && x.level < 4 {
		c -= int64(4-x.level) * 100
	}
	if after.title {
		c += afterHeading
	}
	if x.code {
		c += insideCode
	}
	return c + int64(x.hash)*hashWeight>>32
}

func (s *segmenter) sizeCost(tokens int) int64 {
	d := int64(tokens-s.target) * 1000 / int64(s.target)
	return d * d * sizeWeight / 1_000_000
}

// add takes the next unit.
func (s *segmenter) add(x unit) {
	n := len(s.u)
	if n == 0 {
		s.sum, s.cost, s.from = append(s.sum[:0], 0), append(s.cost[:0], 0), append(s.from[:0], 0)
		s.look = 0
	} else {
		s.best(n, s.cutCost(&x))
	}
	s.u = append(s.u, x)
	s.sum = append(s.sum, s.sum[n]+x.tokens)
}

// best finds how to segment u[:n].
func (s *segmenter) best(n int, cut int64) {
	least, from := int64(never), n-1
	for i := n - 1; i >= 0; i-- {
		t := s.sum[n] - s.sum[i]
		if t > s.max && i < n-1 {
			break
		}
		if c := s.cost[i] + s.sizeCost(t); c < least {
			least, from = c, i
		}
	}
	s.cost, s.from = append(s.cost, least+cut), append(s.from, from)
}

// agreed returns the cuts, ascending, that every segmentation shares which may
// still win; all of the best one's if final. Past a bound of memory the best
// one decides.
func (s *segmenter) agreed(final bool) []int {
	n := len(s.u)
	if n == 0 {
		return nil
	}
	if final {
		s.best(n, 0)
		cuts := s.trace(n)
		s.cost, s.from = s.cost[:n], s.from[:n]
		return cuts
	}
	if s.sum[n]-s.look < s.max {
		return nil
	}
	s.look = s.sum[n]
	lo := n - 1 // the first cut after which a chunk may still grow
	for lo > 0 && s.sum[n]-s.sum[lo-1] <= s.max {
		lo--
	}
	shared := s.trace(lo)
	if s.sum[n] > windowChunks*s.max {
		return shared
	}
	for i := lo + 1; i < n; i++ {
		other := s.trace(i)
		k := 0
		for k < len(shared) && k < len(other) && shared[k] == other[k] {
			k++
		}
		shared = shared[:k]
	}
	return shared
}

// windowChunks times the largest chunk is what may wait for agreement.
const windowChunks = 32

// trace returns the cuts of the best segmentation of u[:n], ascending, n last.
func (s *segmenter) trace(n int) []int {
	var cuts []int
	for ; n > 0; n = s.from[n] {
		cuts = append(cuts, n)
	}
	for i, j := 0, len(cuts)-1; i < j; i, j = i+1, j-1 {
		cuts[i], cuts[j] = cuts[j], cuts[i]
	}
	return cuts
}

// drop forgets the first n units, which were given out.
func (s *segmenter) drop(n int) {
	switch n {
	case 0:
		return
	case len(s.u):
		s.u = s.u[:0]
		return
	}
	s.u = append(s.u[:0], s.u[n:]...)
	s.sum = append(s.sum[:0], s.sum[n:]...)
	s.cost = append(s.cost[:0], s.cost[n:]...)
	s.from = append(s.from[:0], s.from[n:]...)
	s.look -= s.sum[0]
	for i := len(s.sum) - 1; i >= 0; i-- {
		s.sum[i] -= s.sum[0]
	}
	for i := range s.from {
		s.from[i] = max(0, s.from[i]-n)
	}
}
