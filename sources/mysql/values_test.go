package mysql_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"leat"
	"leat/internal/testenv"
	"leat/sources/mysql"
	"leat/sources/sourcetest"
)

// columnTypes lists a column type, the SQL of a value, and the JSON that a
// document's metadata must hold of it.
var columnTypes = []struct{ typ, value, want string }{
	{"TINYINT", "-128", "-128"},
	{"TINYINT UNSIGNED", "255", "255"},
	{"SMALLINT", "-32768", "-32768"},
	{"SMALLINT UNSIGNED", "65535", "65535"},
	{"MEDIUMINT", "-8388608", "-8388608"},
	{"MEDIUMINT", "8388607", "8388607"},
	{"MEDIUMINT UNSIGNED", "16777215", "16777215"},
	{"INT", "-2147483648", "-2147483648"},
	{"INT UNSIGNED", "4294967295", "4294967295"},
	{"INT(8) UNSIGNED ZEROFILL", "42", "42"},
	{"BIGINT", "-9223372036854775808", "-9223372036854775808"},
	{"BIGINT UNSIGNED", "18446744073709551615", "18446744073709551615"},
	{"BOOLEAN", "TRUE", "1"},
	{"DECIMAL(10,2)", "-1234.50", `"-1234.50"`},
	{"DECIMAL(10,2)", "0", `"0.00"`},
	{"DECIMAL(10,2)", "-0.01", `"-0.01"`},
	{"DECIMAL(10,2) UNSIGNED ZEROFILL", "7.5", `"7.50"`},
	{"DECIMAL(65,30)", "12345678901234567890123456789012345.123456789012345678901234567890", `"12345678901234567890123456789012345.123456789012345678901234567890"`},
	{"DECIMAL(20,0)", "-99999999999999999999", `"-99999999999999999999"`},
	{"DECIMAL(18,9)", "100000000.000000001", `"100000000.000000001"`},
	{"DECIMAL(9,9)", "-0.000000001", `"-0.000000001"`},
	{"FLOAT", "3.1415927", "3.1415927"},
	{"FLOAT", "-0.1", "-0.1"},
	{"FLOAT", "16777216", "1.6777216e+07"},
	{"FLOAT UNSIGNED", "1e-20", "1e-20"},
	{"DOUBLE", "3.141592653589793", "3.141592653589793"},
	{"DOUBLE", "-1.7976931348623157e308", "-1.7976931348623157e+308"},
	{"BIT(1)", "b'1'", "1"},
	{"BIT(12)", "b'101010101010'", "2730"},
	{"BIT(64)", "0xFFFFFFFFFFFFFFFE", "18446744073709551614"},
	{"YEAR", "2026", "2026"},
	{"YEAR", "0", "0"},
	{"DATE", "'2026-02-28'", `"2026-02-28"`},
	{"DATE", "'0000-00-00'", "null"},
	{"DATE", "'2026-00-00'", `"2026-00-00"`},
	{"DATE", "'9999-12-31'", `"9999-12-31"`},
	{"TIME", "'12:34:56'", `"12:34:56"`},
	{"TIME", "'-838:59:59'", `"-838:59:59"`},
	{"TIME(1)", "'-00:00:00.1'", `"-00:00:00.1"`},
	{"TIME(2)", "'-01:02:03.99'", `"-01:02:03.99"`},
	{"TIME(4)", "'-00:00:01.0001'", `"-00:00:01.0001"`},
	{"TIME(6)", "'-100:00:00.000001'", `"-100:00:00.000001"`},
	{"TIME(6)", "'800:00:00.999999'", `"800:00:00.999999"`},
	{"DATETIME", "'2026-02-28 23:59:59'", `"2026-02-28T23:59:59"`},
	{"DATETIME(1)", "'2026-02-28 23:59:59.9'", `"2026-02-28T23:59:59.9"`},
	{"DATETIME(3)", "'2026-02-28 23:59:59.001'", `"2026-02-28T23:59:59.001"`},
	{"DATETIME(6)", "'1000-01-01 00:00:00.000001'", `"1000-01-01T00:00:00.000001"`},
	{"DATETIME", "'0000-00-00 00:00:00'", "null"},
	{"DATETIME(3)", "'0000-00-00 00:00:00'", "null"},
	{"TIMESTAMP NULL", "'2026-06-01 12:00:00'", `"2026-06-01T12:00:00Z"`},
	{"TIMESTAMP(2) NULL", "'2026-06-01 12:00:00.25'", `"2026-06-01T12:00:00.25Z"`},
	{"TIMESTAMP(6) NULL", "'2038-01-19 03:14:07.999999'", `"2038-01-19T03:14:07.999999Z"`},
	{"TIMESTAMP NULL", "'0000-00-00 00:00:00'", "null"},
	{"CHAR(10)", "'ab  '", `"ab"`},
	{"CHAR(10) CHARACTER SET utf16", "'中文'", `"中文"`},
	{"CHAR(255)", "REPEAT('长',255)", `"` + strings.Repeat("长", 255) + `"`},
	{"VARCHAR(20)", "'ab  '", `"ab  "`},
	{"VARCHAR(20)", "''", `""`},
	{"VARCHAR(500)", "REPEAT('é',500)", `"` + strings.Repeat("é", 500) + `"`},
	{"VARCHAR(20)", "'😀\"\\\\'", `"😀\"\\"`},
	{"VARCHAR(20) CHARACTER SET latin1", "'naïve €'", `"naïve €"`},
	{"VARCHAR(20) CHARACTER SET gbk", "'中文内容'", `"中文内容"`},
	{"VARCHAR(20) CHARACTER SET big5", "'繁體中文'", `"繁體中文"`},
	{"VARCHAR(20) CHARACTER SET sjis", "'日本語ｶﾅ'", `"日本語ｶﾅ"`},
	{"VARCHAR(20) CHARACTER SET ujis", "'日本語'", `"日本語"`},
	{"VARCHAR(20) CHARACTER SET euckr", "'한국어'", `"한국어"`},
	{"VARCHAR(20) CHARACTER SET cp1251", "'Привет'", `"Привет"`},
	{"VARCHAR(20) CHARACTER SET koi8r", "'Привет'", `"Привет"`},
	{"VARCHAR(20) CHARACTER SET utf16", "'中文😀'", `"中文😀"`},
	{"VARCHAR(20) CHARACTER SET utf16le", "'中文😀'", `"中文😀"`},
	{"VARCHAR(20) CHARACTER SET utf32", "'中文😀'", `"中文😀"`},
	{"VARCHAR(20) CHARACTER SET ucs2", "'中文'", `"中文"`},
	{"VARCHAR(20) CHARACTER SET utf8mb3", "'中文'", `"中文"`},
	{"VARCHAR(20) CHARACTER SET ascii", "'plain'", `"plain"`},
	{"TINYTEXT", "'tiny'", `"tiny"`},
	{"TEXT CHARACTER SET latin1", "'café'", `"café"`},
	{"MEDIUMTEXT", "REPEAT('中',300)", `"` + strings.Repeat("中", 300) + `"`},
	{"LONGTEXT", "'line\\nnext\\tтаб'", `"line\nnext\tтаб"`},
	{"BINARY(5)", "X'616200'", `"YWIAAAA="`},
	{"BINARY(16)", "X'00112233445566778899AABBCCDDEE00'", `"ABEiM0RVZneImaq7zN3uAA=="`},
	{"VARBINARY(8)", "X'00FF00'", `"AP8A"`},
	{"BLOB", "X'DEADBEEF'", `"3q2+7w=="`},
	{"ENUM('a','b','ü')", "'ü'", `"ü"`},
	{"ENUM('x','中文') CHARACTER SET gbk", "'中文'", `"中文"`},
	{"ENUM('a','b')", "''", `""`},
	{"SET('a','b','ü')", "'ü,a'", `"a,ü"`},
	{"SET('a','中') CHARACTER SET utf16", "'a,中'", `"a,中"`},
	{"SET('a','b')", "''", `""`},
	{"GEOMETRY", "ST_GeomFromText('POINT(1 2)')", `"AAAAAAEBAAAAAAAAAAAA8D8AAAAAAAAAQA=="`},
	{"INT", "NULL", "null"},
	{"VARCHAR(10)", "NULL", "null"},
	{"DATETIME(6)", "NULL", "null"},
}

// JSON is a type of MySQL only: MariaDB keeps its text.
var jsonTypes = []struct{ typ, value, want string }{
	{"JSON", `'{"b": [1, 2.50, true, null, "x\\"y"], "a": {"深": "度"}, "long": 12345678901234567}'`, `{"a":{"深":"度"},"b":[1,2.5,true,null,"x\"y"],"long":12345678901234567}`},
	{"JSON", `'[1.0, 1e20, -1.5e-7, 18446744073709551615, -9223372036854775808, 32767, 32768, 70000, 4294967296]'`, `[1.0,1e+20,-1.5e-07,18446744073709551615,-9223372036854775808,32767,32768,70000,4294967296]`},
	{"JSON", `JSON_ARRAY(CAST('2026-02-28' AS DATE), CAST('2026-02-28 01:02:03.5' AS DATETIME(6)), CAST('-10:00:00' AS TIME), CAST(-12.50 AS DECIMAL(10,2)), CAST(X'00FF' AS BINARY))`,
		`["2026-02-28","2026-02-28 01:02:03.500000","-10:00:00.000000",-12.5,"base64:type15:AP8="]`},
	{"JSON", `'"plain"'`, `"plain"`},
	{"JSON", `'null'`, `null`},
	{"JSON", `'{}'`, `{}`},
	{"JSON", `JSON_ARRAY(REPEAT('a',70000))`, `["` + strings.Repeat("a", 70000) + `"]`},
	{"JSON", `JSON_OBJECT('k', REPEAT('b',200), 'c', CHAR(1,10 USING utf8mb4))`, `{"c":"\u0001\n","k":"` + strings.Repeat("b", 200) + `"}`},
}

// TestValues compares what a document says of every column type with what it
// must say, once from the snapshot and once from the binlog.
func TestValues(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		name := db.Database(t)
		types := columnTypes
		if db.Flavor == "mysql" {
			types = append(append(types[:0:0], types...), jsonTypes...)
		}
		var cfg []mysql.TableConfig
		for i, c := range types {
			table := fmt.Sprintf("%s.t%d", name, i)
			db.Exec(t, fmt.Sprintf("CREATE TABLE %s (id INT PRIMARY KEY, skipped %s, v %s, n INT)", table, strings.TrimSuffix(c.typ, " ZEROFILL"), c.typ))
			cfg = append(cfg, mysql.TableConfig{Table: table, Title: "n", Metadata: []string{"v"}})
		}
		write := func(format string) {
			conn, err := db.Root().Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.ExecContext(t.Context(), "SET SESSION sql_mode='', time_zone='+00:00'"); err != nil {
				t.Fatal(err)
			}
			for i, c := range types {
				if _, err := conn.ExecContext(t.Context(), fmt.Sprintf(format, fmt.Sprintf("%s.t%d", name, i), c.value)); err != nil {
					t.Fatalf("%s: %v", c.typ, err)
				}
			}
		}
		rec := sourcetest.NewRecorder("mysql:shop")
		src := open(t, config(db, cfg...))
		defer src.Close()
		compare := func(from string, key int) {
			t.Helper()
			rec.Once(t, src)
			index := rec.Index()
			for i, c := range types {
				e := index[leat.DocumentID("mysql", "shop", fmt.Sprintf("%s.t%d", name, i), fmt.Sprint(key))]
				if e.Document == nil {
					t.Fatalf("%s: no document of %s %s", from, c.typ, c.value)
				}
				got, err := json.Marshal(e.Document.Metadata["v"])
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(decodeJSON(t, c.want), decodeJSON(t, string(got))); diff != "" {
					t.Errorf("%s: %s %s (-want +got):\n%s", from, c.typ, c.value, diff)
				}
			}
			sameDocuments(t, src, rec)
		}
		write("INSERT INTO %s VALUES (1, NULL, %s, 1)")
		compare("snapshot", 1)
		write("INSERT INTO %[1]s VALUES (2, %[2]s, %[2]s, 1)")
		compare("binlog", 2)
		write("UPDATE %[1]s SET v=%[2]s, n=2 WHERE id=1")
		compare("update", 1)
	})
}

func decodeJSON(t *testing.T, s string) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return v
}
