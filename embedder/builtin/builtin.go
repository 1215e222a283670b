package builtin

// Name identifies the model: vectors of equal names are comparable.
const Name = "multilingual-e5-small-int8"

type Config struct {
	Dir     string `yaml:"dir"`
	Threads int    `yaml:"threads"`
}

// NewTokenizer loads the tokenizer alone (0.3 s, 10 MB), for commands that
// measure text but embed nothing.
func NewTokenizer(cfg Config) (*Tokenizer, error) {
	f, err := openFolder(cfg)
	if err != nil {
		return nil, err
	}
	b, err := f.read(tokenizerFile)
	if err != nil {
		return nil, err
	}
	t, err := parseTokenizer(b)
	if err != nil {
		return nil, f.fail(err)
	}
	return t, nil
}
