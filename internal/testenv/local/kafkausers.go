package local

import (
	"bytes"
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// secure writes the properties of a listener with TLS or SASL.
func (k *Kafka) secure(b *bytes.Buffer, name string, l KafkaListener) error {
	prefix := "listener.name." + name + "."
	if l.Cert != "" {
		cert, err := os.ReadFile(l.Cert)
		if err != nil {
			return err
		}
		key, err := os.ReadFile(l.Key)
		if err != nil {
			return err
		}
		store := filepath.Join(k.dir, name+".pem")
		if err := os.WriteFile(store, append(key, cert...), 0o600); err != nil {
			return err
		}
		fmt.Fprintf(b, prefix+"ssl.keystore.type=PEM\n"+prefix+"ssl.keystore.location=%s\n", store)
	}
	if l.ClientCA != "" {
		fmt.Fprintf(b, prefix+"ssl.truststore.type=PEM\n"+prefix+"ssl.truststore.location=%s\n"+prefix+"ssl.client.auth=required\n", l.ClientCA)
	}
	if l.Users != nil {
		const module = "org.apache.kafka.common.security."
		fmt.Fprintf(b, prefix+"sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n"+prefix+"plain.sasl.jaas.config=%splain.PlainLoginModule required", module)
		for user, password := range l.Users {
			// A string of a JAAS configuration, as a value of a properties file.
			fmt.Fprintf(b, " user_%s=%s", user, strings.ReplaceAll(strconv.Quote(password), `\`, `\\`))
		}
		fmt.Fprintln(b, ";")
		for _, hash := range []string{"256", "512"} {
			fmt.Fprintf(b, prefix+"scram-sha-%s.sasl.jaas.config=%sscram.ScramLoginModule required;\n", hash, module)
		}
	}
	return nil
}

// createUsers makes the users of the listeners known to SCRAM.
func (k *Kafka) createUsers(ctx context.Context) error {
	users := map[string]string{} // SCRAM's are the broker's, not the listener's
	for _, l := range k.cfg.Listeners {
		maps.Copy(users, l.Users)
	}
	if len(users) == 0 {
		return nil
	}
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := kafka.Client{Addr: kafka.TCP(k.Addr()), Timeout: time.Minute, Transport: transport}
	salt := []byte("salt of a test's user")
	for mechanism, hash := range map[kafka.ScramMechanism]func() hash.Hash{kafka.ScramMechanismSha256: sha256.New, kafka.ScramMechanismSha512: sha512.New} {
		req := &kafka.AlterUserScramCredentialsRequest{}
		for user, password := range users {
			const iterations = 4096
			salted, err := pbkdf2.Key(hash, password, salt, iterations, hash().Size())
			if err != nil {
				return err
			}
			req.Upsertions = append(req.Upsertions, kafka.UserScramCredentialsUpsertion{
				Name: user, Mechanism: mechanism, Iterations: iterations, Salt: salt, SaltedPassword: salted,
			})
		}
		res, err := client.AlterUserScramCredentials(ctx, req)
		if err != nil {
			return fmt.Errorf("create users: %w", err)
		}
		for _, r := range res.Results {
			if r.Error != nil {
				return fmt.Errorf("create user %s: %w", r.User, r.Error)
			}
		}
	}
	return nil
}
