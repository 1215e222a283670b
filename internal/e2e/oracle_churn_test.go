package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"leat/internal/testenv/local"
)

// victim is a process of `leat run` that is killed at times.
type victim struct {
	*local.Process
	logged int // bytes of its log when it was started
}

// restarted starts it again.
func (v *victim) restarted() error {
	v.logged = len(v.LogTail(1 << 30))
	return v.Start(context.Background())
}

// running reports whether it has come so far that it reads pipeline.yaml no more.
func (v *victim) running() bool {
	return strings.Contains(v.LogTail(1 << 30)[v.logged:], "leat is running")
}

// event is what happens after so many changes.
type event struct {
	after int
	do    func()
}

// churn makes so many changes, and what is to happen meanwhile happens.
func (o *oracle) churn(n int) {
	o.t.Helper()
	for range n {
		o.change()
		o.happen()
	}
	o.happen()
}

// change makes one change of a row and now and then one of an object.
func (o *oracle) change() {
	o.shop.step()
	o.changes++
	if o.changes*o.objects/o.rows != (o.changes-1)*o.objects/o.rows {
		o.bucket.step()
	}
	time.Sleep(time.Duration(o.chance.IntN(10)) * time.Millisecond)
}

func (o *oracle) happen() {
	for len(o.events) > 0 && o.events[0].after <= o.changes {
		next := o.events[0]
		o.events = o.events[1:]
		next.do()
	}
}

// kill kills one of the processes, each before any is killed again, and starts
// it a few changes later.
func (o *oracle) kill() {
	if len(o.deck) == 0 {
		o.deck = slices.Clone(o.victims)
		o.chance.Shuffle(len(o.deck), func(i, j int) { o.deck[i], o.deck[j] = o.deck[j], o.deck[i] })
	}
	v := o.deck[0]
	o.deck = o.deck[1:]
	time.Sleep(time.Duration(o.chance.IntN(1000)) * time.Millisecond)
	o.p.alive()
	_, embedded := o.stores.(fileStore)
	o.disturbed = o.disturbed || embedded // the broker ends with its process
	o.check(v.Kill())
	for range o.chance.IntN(20) {
		o.change()
	}
	o.check(v.restarted())
	o.logf("%s was killed", v.Name())
}

// crash kills a server and starts it a few changes later.
func (o *oracle) crash(name string, x server) {
	if o.search != nil {
		defer o.search.fault()()
	}
	o.disturbed = true
	x.Kill(o.t)
	for range o.chance.IntN(100) {
		o.change()
	}
	x.Start(o.t)
	until(o.t, 5*time.Minute, "the stores answer", func() error {
		_, _, _, err := o.stores.read(o.t.Context(), 1)
		return err
	})
	o.logf("%s was killed and is back", name)
}

// reindex changes the settings and builds the next generation with them.
func (o *oracle) reindex(set func()) {
	o.awaitRunning()
	before := o.p.generations()
	set()
	o.p.configure(o.yaml(o.settings))
	o.beside(command{
		args:     []string{"reindex"},
		recorded: func(now []generation) bool { return len(now) > len(before) },
		reached: func(now []generation) bool {
			n := live(now)
			return n > 0 && !slices.ContainsFunc(before, func(g generation) bool { return g.Generation == n })
		},
	})
	o.former, o.live = o.live, live(o.p.generations())
	o.built[o.live] = o.settings
	o.logf("generation %d is live, made with %+v", o.live, o.settings)
}

// rollback makes the former generation live again.
func (o *oracle) rollback() {
	o.beside(command{
		args:     []string{"reindex", "rollback"},
		recorded: func([]generation) bool { return true },
		reached:  func(now []generation) bool { return live(now) == o.former },
	})
	o.former, o.live = o.live, o.former
	o.logf("generation %d is live again", o.live)
}

// awaitRunning waits until no process of `leat run` reads pipeline.yaml any more.
func (o *oracle) awaitRunning() {
	o.t.Helper()
	until(o.t, 5*time.Minute, "all processes run", func() error {
		o.p.alive()
		for _, v := range o.victims {
			if !v.running() {
				return fmt.Errorf("%s does not run yet", v.Name())
			}
		}
		return nil
	})
}

// command is one that works on generations.
type command struct {
	args     []string
	recorded func([]generation) bool // what it is to do will be done, even if it is killed
	reached  func([]generation) bool // it is done
}

// beside runs a command beside a quarter of the changes, at least. It is killed
// at random and run again.
func (o *oracle) beside(c command) {
	o.t.Helper()
	enough := o.changes + o.rows/4
	for i := 0; ; i++ {
		var kill time.Duration
		if i < o.commands {
			kill = time.Duration(o.chance.IntN(1500*(1+i))) * time.Millisecond
		}
		if o.attempt(c, kill, enough) {
			break
		}
	}
	o.churn(enough - o.changes)
}

// attempt runs a command, kills it after a while unless that is 0, and reports
// whether all is done. Past so many changes they come ever more slowly.
func (o *oracle) attempt(c command, kill time.Duration, enough int) bool {
	o.t.Helper()
	name, began, recorded := strings.Join(c.args, " "), time.Now(), false
	o.disturbed = false
	j := o.p.beside(c.args...)
	defer func() {
		if err := j.Kill(); err != nil {
			o.t.Error(err)
		}
		if o.t.Failed() {
			o.t.Logf("the end of the log of leat %s:\n%s", name, j.LogTail(6000))
		}
	}()
	for {
		o.change()
		if more := o.changes - enough; more > 0 {
			time.Sleep(min(time.Duration(20*more)*time.Millisecond, 2*time.Second))
		}
		// A process that is started before would refuse the new settings.
		if recorded = recorded || c.recorded(o.p.generations()); recorded {
			o.happen()
		}
		code, ended := j.ended()
		switch {
		case !ended && kill > 0 && time.Since(began) > kill:
			o.check(j.Kill())
			o.killed++
			o.logf("leat %s was killed", name)
			return c.reached(o.p.generations())
		case !ended && time.Since(began) > 20*time.Minute:
			o.t.Fatalf("leat %s does not end", name)
		case ended && code == 0:
			if now := o.p.generations(); !c.reached(now) {
				o.t.Fatalf("leat %s has ended, and left %+v", name, now)
			}
			return true
		case ended && o.disturbed: // what it needs was away
			o.logf("leat %s ended with exit code %d", name, code)
			return false
		case ended:
			o.t.Fatalf("leat %s: exit code %d", name, code)
		}
	}
}
