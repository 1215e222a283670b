// Package bus is leat's Kafka: a client made on segmentio/kafka-go, and an
// embedded broker that the very same client reaches over loopback TCP.
//
// # Producing
//
// A [Producer] batches records per partition, has one request in flight per
// partition and retries it with the same producer id and sequence, so records
// of one key stay in order (I3) and none is stored twice or out of order by a
// retry. It answers only once every replica in sync holds the records. A key's
// partition is murmur2(key) & 0x7fffffff % partitions: what the Java client
// and most others do, so that other publishers agree with leat.
//
// # Consuming
//
// [Client.Consume] hands over batches of one partition in offset order and
// commits their offsets after the handler has returned nil (I1). Several
// partitions are handled in parallel. A member of a group stays the same member
// while brokers restart or connections break; one that has not reached the
// coordinator for a session (6 s) stops its work, since another may have taken
// it over by then. [Client.Lead] divides names instead of records by the same
// means: what a killed process led is led by another after 6 to 8 s.
//
// # Connections
//
// All of them are made in one place (connect.go), with TLS and SASL where
// configured. There is no deadline for a request as a whole, which would have
// one that is too slow for it sent for ever: a connection fails once the broker
// has been silent for 30 s, or gone without a word for 11 s. [Client.Ping] tells
// a wrong password, certificate or port from a broker that is away.
//
// # Reading without a group
//
// [Client.Latest], [Client.Lookup], [Client.Tail], [Client.Lag] and
// [Client.WaitConsumed] serve status, dead letters and positions.
package bus
