package demo

import (
	"fmt"
	"strings"

	"leat/internal/testenv/local"
)

// password of the account that leat reads the database with.
const password = "demo"

// product is a row of shop.products; its id is its place in products, from 1.
type product struct{ name, description, price string }

var products = []product{
	{"Stormproof umbrella, red", "A red umbrella with two layers of cloth: wind passes between them and the ribs stay where they are. Opens with a button.", "39.00"},
	{"双层防风雨伞", "双层伞面的黑色长柄雨伞，六级风不翻，伞骨可以单独更换。", "268.00"},
	{"Whistling kettle, 1.7 litres", "Steel kettle for gas and induction. Whistles when the water boils and keeps the handle cool.", "34.50"},
	{"电热水壶", "一点五升的电热水壶，可以选择八十度、九十度和一百度，适合泡绿茶。", "199.00"},
	{"Dome tent for two", "Pitches outer tent first, so the inside stays dry in rain. 1.9 kilograms with its bag.", "189.00"},
	{"三人帐篷", "三人双层帐篷，外帐可以先搭，雨天不湿内帐，重两公斤八。", "899.00"},
	{"Desk lamp with dimmer", "Warm white light for reading, dimmed by a wheel. The arm turns all the way round.", "59.00"},
	{"护眼台灯", "可以调光的护眼台灯，暖光，适合晚上看书写字。", "328.00"},
	{"Folding bicycle", "Twenty-inch wheels, seven gears, folds in fifteen seconds and fits under a train seat.", "640.00"},
	{"折叠自行车", "二十寸的折叠自行车，七速，十五秒折好，可以带上地铁。", "2380.00"},
	{"Cast iron teapot", "Holds 0.8 litres and keeps tea hot for an hour. Enamelled inside: do not put it on a flame.", "45.00"},
	{"宜兴紫砂壶", "手工制作的紫砂壶，两百毫升，适合泡普洱茶和乌龙茶。", "560.00"},
	{"Fountain pen, fine", "A steel nib that writes a fine line. Filled by a piston; a flight does not make it leak when it is full.", "72.00"},
	{"钢笔", "细尖钢笔，活塞上墨，金属笔杆，写中文笔画清楚。", "256.00"},
	{"Water filter jug", "Takes limescale and chlorine out of tap water. A cartridge lasts a month.", "28.00"},
	{"净水器", "厨房台下净水器，四级过滤，滤芯半年更换一次。", "1280.00"},
	{"Wool scarf, grey", "Two metres of merino wool. Wash by hand, dry flat.", "49.00"},
	{"羊毛围巾", "两米长的灰色羊毛围巾，手洗，平铺晾干。", "299.00"},
	{"Cordless drill", "Eighteen volts, two speeds, two batteries. Drills wood, steel and brick.", "129.00"},
	{"充电电钻", "十八伏充电电钻，两块电池，可以钻木头、钢板和砖墙。", "699.00"},
	{"Telescope for beginners", "Shows the rings of Saturn and the moons of Jupiter. Comes with a tripod and two eyepieces.", "210.00"},
	{"天文望远镜", "入门天文望远镜，可以看到土星的光环和木星的卫星，带三脚架。", "1450.00"},
	{"Sourdough basket", "Rattan basket in which a loaf of one kilogram rises overnight.", "19.00"},
	{"竹编蒸笼", "二十四厘米的竹编蒸笼，两层一盖，蒸包子和鱼都可以。", "88.00"},
}

// makeShop makes the table and the account with the privileges that leat needs.
func (d *demo) makeShop() error {
	_, err := d.database.Root().Exec(`
CREATE DATABASE shop CHARACTER SET utf8mb4;
CREATE TABLE shop.products (
	id INT PRIMARY KEY, name VARCHAR(200) NOT NULL, description TEXT, price DECIMAL(10,2), stock INT NOT NULL DEFAULT 10);
CREATE USER leat@'%' IDENTIFIED BY '` + password + `';
GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO leat@'%';
GRANT SELECT ON shop.* TO leat@'%'`)
	if err != nil {
		return err
	}
	if d.shop, err = local.Open("root", "", d.database.Addr(), "shop"); err != nil {
		return err
	}
	d.onClose(d.shop.Close)
	var values []string
	var args []any
	for i, p := range products {
		values = append(values, "(?, ?, ?, ?)")
		args = append(args, i+1, p.name, p.description, p.price)
	}
	d.rows = len(products)
	_, err = d.shop.Exec("INSERT INTO products (id, name, description, price) VALUES "+strings.Join(values, ", "), args...)
	return err
}

func productID(id int) string { return fmt.Sprintf("mysql:shop/shop.products/%d", id) }
