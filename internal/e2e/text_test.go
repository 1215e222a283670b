package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// writer makes up texts in English and Chinese.
type writer struct{ *rand.Rand }

var (
	things   = []string{"umbrella", "kettle", "desk lamp", "bicycle", "tent", "teapot", "notebook", "water filter", "backpack", "scarf", "drill", "telescope"}
	colours  = []string{"red", "blue", "grey", "emerald", "orange", "black"}
	facts    = []string{"keeps its shape in strong wind", "is made of recycled steel", "weighs less than a kilogram", "comes with a warranty of two years", "must not be left in the sun", "fits into any drawer", "was designed in Lisbon", "needs two batteries", "folds to the size of a hand"}
	物品       = []string{"雨伞", "水壶", "台灯", "自行车", "帐篷", "茶壶", "笔记本", "净水器", "背包", "围巾", "电钻", "望远镜"}
	颜色       = []string{"红色", "蓝色", "灰色", "翠绿色", "橙色", "黑色"}
	说明       = []string{"在大风里也不变形", "由回收的钢材制成", "重量不到一公斤", "保修两年", "不要放在阳光下", "可以放进任何抽屉", "是在里斯本设计的", "需要两节电池", "折叠起来只有手掌大小"}
	quantity = []string{"Every", "The new", "This", "Our", "A second-hand", "The smallest"}
)

func (w writer) pick(of []string) string { return of[w.IntN(len(of))] }

func (w writer) title() string {
	if w.IntN(2) == 0 {
		return w.pick(颜色) + w.pick(物品)
	}
	return w.pick(colours) + " " + w.pick(things)
}

func (w writer) sentence(chinese bool) string {
	if chinese {
		return fmt.Sprintf("这款%s的%s%s，编号%d，%s。", w.pick(颜色), w.pick(物品), w.pick(说明), w.IntN(100000), w.pick(说明))
	}
	return fmt.Sprintf("%s %s %s %s, number %d, and %s. ", w.pick(quantity), w.pick(colours), w.pick(things), w.pick(facts), w.IntN(100000), w.pick(facts))
}

// paragraphs is n paragraphs of one to six sentences.
func (w writer) paragraphs(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString("\n\n")
		}
		chinese := w.IntN(2) == 0
		for range 1 + w.IntN(6) {
			b.WriteString(w.sentence(chinese))
		}
	}
	return b.String()
}

// markdown is a document of sections.
func (w writer) markdown(sections int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s\n", w.title(), w.paragraphs(1))
	for range sections {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", w.title(), w.paragraphs(1+w.IntN(4)))
		if w.IntN(3) == 0 {
			fmt.Fprintf(&b, "\n- %s\n- %s\n\n```sh\nmake %s\n```\n", w.title(), w.title(), w.pick(colours))
		}
	}
	return b.String()
}

func (w writer) html(sections int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<!doctype html><html><head><title>%s</title><style>p{color:red}</style></head><body><h1>%s</h1>", w.title(), w.title())
	for range sections {
		fmt.Fprintf(&b, "<h2>%s</h2>\n<p>%s</p>\n<ul><li>%s</li><li>%s &amp; more</li></ul>", w.title(), w.paragraphs(1), w.title(), w.title())
	}
	b.WriteString("</body></html>\n")
	return b.String()
}

// edited is text with a sentence changed somewhere in the middle.
func (w writer) edited(text string) string {
	at := strings.IndexAny(text[len(text)/2:], " 。")
	if at < 0 {
		return text + w.sentence(false)
	}
	at += len(text) / 2
	for at < len(text) && text[at]&0xC0 == 0x80 {
		at++
	}
	return text[:at] + " " + w.sentence(w.IntN(2) == 0) + text[at:]
}
