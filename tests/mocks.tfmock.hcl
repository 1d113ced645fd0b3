# What AWS would answer, where Terraform's random text would not do: ARNs and policies, which the
# provider checks, and words that it would change. A policy is read only where nothing that it names
# would be changed.
mock_data "aws_caller_identity" {
  defaults = { account_id = "123456789012" }
}

mock_data "aws_partition" {
  defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
}

mock_data "aws_iam_policy_document" {
  defaults = { json = "{}" }
}

mock_resource "aws_s3_bucket" {
  defaults = { id = "the-bucket", arn = "arn:aws:s3:::the-bucket" }
}

mock_resource "aws_s3_bucket_lifecycle_configuration" {
  defaults = { transition_default_minimum_object_size = "all_storage_classes_128K" }
}

mock_resource "aws_dynamodb_table" {
  defaults = { arn = "arn:aws:dynamodb:us-east-1:123456789012:table/the-table", stream_view_type = "" }
}

mock_resource "aws_cloudwatch_log_group" {
  defaults = { arn = "arn:aws:logs:us-east-1:123456789012:log-group:/aws/lambda/the-function" }
}
