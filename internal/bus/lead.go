package bus

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Lead divides names among the processes that call it with the same group: for
// each name, the owner of its partition of topic runs run, with a context that
// ends when the ownership does. Where run returns an error before that, Lead
// returns it; where it returns nil, it is not run again by this call. Lead
// returns nil when ctx ends, once every run has returned.
func (c *Client) Lead(ctx context.Context, group, topic string, names []string, run func(ctx context.Context, name string) error) error {
	n, err := c.waitPartitions(ctx, topic)
	if err != nil {
		return err
	}
	all := allPartitions(n)
	var mu sync.Mutex
	finished := map[string]bool{}
	return c.member(ctx, group, topic, func(ctx context.Context, gen *generation) error {
		g, ctx := errgroup.WithContext(ctx)
		for _, name := range names {
			mu.Lock()
			over := finished[name]
			mu.Unlock()
			if _, owned := gen.offsets[partitionOf([]byte(name), all)]; over || !owned {
				continue
			}
			g.Go(func() error {
				err := run(ctx, name)
				if err == nil && ctx.Err() == nil {
					mu.Lock()
					finished[name] = true
					mu.Unlock()
				}
				return err
			})
		}
		return g.Wait()
	})
}
