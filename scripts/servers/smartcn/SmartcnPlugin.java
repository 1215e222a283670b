package leat;

import java.util.Map;
import org.apache.lucene.analysis.Analyzer;
import org.apache.lucene.analysis.Tokenizer;
import org.apache.lucene.analysis.cn.smart.HMMChineseTokenizer;
import org.apache.lucene.analysis.cn.smart.SmartChineseAnalyzer;
import org.elasticsearch.index.analysis.AbstractIndexAnalyzerProvider;
import org.elasticsearch.index.analysis.AbstractTokenizerFactory;
import org.elasticsearch.index.analysis.AnalyzerProvider;
import org.elasticsearch.index.analysis.TokenizerFactory;
import org.elasticsearch.indices.analysis.AnalysisModule.AnalysisProvider;
import org.elasticsearch.plugins.AnalysisPlugin;
import org.elasticsearch.plugins.Plugin;

/** Lucene's smartcn under the names that Elastic's plugin analysis-smartcn gives it. */
public class SmartcnPlugin extends Plugin implements AnalysisPlugin {
    @Override public Map<String, AnalysisProvider<AnalyzerProvider<? extends Analyzer>>> getAnalyzers() {
        return Map.of("smartcn", (index, env, name, settings) -> new AbstractIndexAnalyzerProvider<SmartChineseAnalyzer>(name, settings) {
            private final SmartChineseAnalyzer analyzer = new SmartChineseAnalyzer();
            @Override public SmartChineseAnalyzer get() { return analyzer; }
        });
    }

    @Override public Map<String, AnalysisProvider<TokenizerFactory>> getTokenizers() {
        return Map.of("smartcn_tokenizer", (index, env, name, settings) -> new AbstractTokenizerFactory(index, settings, name) {
            @Override public Tokenizer create() { return new HMMChineseTokenizer(); }
        });
    }
}
