package bus

import (
	"fmt"
	"time"
)

// TopicNames of a pipeline and one of its generations.
type TopicNames struct {
	Documents   string // NAME.documents: the public contract
	DeadLetters string // NAME.deadletters
	Positions   string // NAME.positions
	Generations string // NAME.generations
	Chunks      string // NAME.gN.chunks
	Vectors     string // NAME.gN.vectors
}

// Topics names the topics of pipeline name and one of its generations.
func Topics(name string, generation int) TopicNames {
	g := fmt.Sprintf("%s.g%d", name, generation)
	return TopicNames{
		Documents:   name + ".documents",
		DeadLetters: name + ".deadletters",
		Positions:   name + ".positions",
		Generations: name + ".generations",
		Chunks:      g + ".chunks",
		Vectors:     g + ".vectors",
	}
}

// GroupNames of a pipeline and one of its generations.
type GroupNames struct {
	Sources       string // NAME.sources: its members lead the sources
	Chunker       string // NAME.gN.chunker
	Embedder      string // NAME.gN.embedder
	TextIndexer   string // NAME.gN.text-indexer
	VectorIndexer string // NAME.gN.vector-indexer
}

// Groups names the consumer groups of pipeline name and one of its generations.
func Groups(name string, generation int) GroupNames {
	g := fmt.Sprintf("%s.g%d", name, generation)
	return GroupNames{
		Sources:       name + ".sources",
		Chunker:       g + ".chunker",
		Embedder:      g + ".embedder",
		TextIndexer:   g + ".text-indexer",
		VectorIndexer: g + ".vector-indexer",
	}
}

// Topic and the settings that leat needs it to have.
type Topic struct {
	Name            string
	Partitions      int
	Replicas        int           // 0: the brokers' default
	Compact         bool          // keep the latest record of every key for ever
	Retention       time.Duration // of a topic that is not compacted
	MaxMessageBytes int           // largest record batch; 0: the brokers' default
}

// TopicSettings are what an operator decides about the topics of a pipeline.
type TopicSettings struct {
	Partitions      int           // of documents, chunks and vectors
	Replicas        int           // 0: the brokers' default
	Retention       time.Duration // of chunks and vectors: the longest outage of a stage that loses nothing
	MaxMessageBytes int           // of documents, chunks and vectors
}

// Specs are the topics that all generations share, with their settings, for
// [Client.EnsureTopics].
func (n TopicNames) Specs(s TopicSettings) []Topic {
	return []Topic{
		{Name: n.Documents, Partitions: s.Partitions, Replicas: s.Replicas, Compact: true, MaxMessageBytes: s.MaxMessageBytes},
		{Name: n.DeadLetters, Partitions: s.Partitions, Replicas: s.Replicas, Compact: true, MaxMessageBytes: s.MaxMessageBytes},
		{Name: n.Positions, Partitions: s.Partitions, Replicas: s.Replicas, Compact: true},
		{Name: n.Generations, Partitions: 1, Replicas: s.Replicas, Compact: true},
	}
}

// GenerationSpecs are the topics of the generation, with their settings.
func (n TopicNames) GenerationSpecs(s TopicSettings) []Topic {
	flow := Topic{Partitions: s.Partitions, Replicas: s.Replicas, Retention: s.Retention, MaxMessageBytes: s.MaxMessageBytes}
	chunks, vectors := flow, flow
	chunks.Name, vectors.Name = n.Chunks, n.Vectors
	return []Topic{chunks, vectors}
}
