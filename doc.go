// Package leat holds the types and interfaces of the flow: a change at a
// source becomes an [Event] on the documents topic, the chunker turns it into
// a [Revision], the embedder adds vectors to it, and the indexers apply it to
// the stores. It imports the standard library only; every source, chunker,
// embedder and sink imports this package and none of the others.
//
// # Invariants
//
// The code that upholds one of these carries its tag in a comment.
//
//	I1  A position or offset is committed only after its effect is durable downstream.
//	I2  An older version never replaces or resurrects a newer one.
//	I3  Changes of one document are applied in order.
//	I4  After a version is applied no chunk of an older one is searchable; during
//	    the change the document never disappears.
//	I5  Nothing is dropped silently: every event ends applied, superseded or in
//	    deadletters with a reason and a hint.
//	I6  The index can be rebuilt without downtime and compared with its sources.
//	I7  SIGKILL of any process at any moment loses nothing.
//	I8  Memory is bounded by configuration, not by the size of a table, a file, a
//	    transaction or a backlog.
package leat
