package bus

import (
	"context"
	"errors"

	"github.com/segmentio/kafka-go"
)

// Members returns the client ids ([Config.ClientID]) of the members of each
// group, none for a group that nobody is in or that does not exist. A member
// that was killed counts until its session times out.
func (c *Client) Members(ctx context.Context, groups ...string) (map[string][]string, error) {
	members := make(map[string][]string, len(groups))
	for _, group := range groups { // one a request: each may have a coordinator of its own
		err := c.retry(ctx, func() error {
			res, err := c.kafka.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{group}})
			if err != nil {
				return err
			}
			members[group] = nil
			for _, g := range res.Groups {
				if g.Error != nil {
					return g.Error
				}
				for _, m := range g.Members {
					members[group] = append(members[group], m.ClientID)
				}
			}
			return nil
		})
		if err != nil {
			return nil, c.wrap(err, "asking for the members of group %s", group)
		}
	}
	return members, nil
}

// DeleteGroups makes the brokers forget groups without members, and where they
// were; those that do not exist are fine.
func (c *Client) DeleteGroups(ctx context.Context, groups ...string) error {
	var errs []error
	for _, group := range groups { // one a request: each may have a coordinator of its own
		err := c.retry(ctx, func() error {
			res, err := c.kafka.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{group}})
			if err != nil {
				return err
			}
			if err := res.Errors[group]; !errors.Is(err, kafka.GroupIdNotFound) {
				return err
			}
			return nil
		})
		errs = append(errs, c.wrap(err, "deleting group %s", group))
	}
	return errors.Join(errs...)
}
