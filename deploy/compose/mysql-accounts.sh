# Sourced by the image's entrypoint, once, when the data directory is made:
# a table to try leat with, and the account that it reads as.
docker_process_sql <<SQL
CREATE TABLE shop.products (
  id INT PRIMARY KEY AUTO_INCREMENT,
  name VARCHAR(200) NOT NULL,
  description TEXT,
  details TEXT,
  sku VARCHAR(40),
  price DECIMAL(10,2)
);
CREATE USER 'leat'@'%' IDENTIFIED BY '${LEAT_MYSQL_PASSWORD}';
GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'leat'@'%';
GRANT SELECT ON shop.products TO 'leat'@'%';
SQL
