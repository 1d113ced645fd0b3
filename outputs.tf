output "s3_bucket_name" {
  description = "Bucket to upload to"
  value       = aws_s3_bucket.uploads.id
}

output "dynamodb_table_name" {
  description = "Table that holds a row for each created object"
  value       = aws_dynamodb_table.files.name
}

output "failure_queue_url" {
  description = "Queue of the events that failed three times"
  value       = aws_sqs_queue.failures.url
}

output "log_group_name" {
  description = "Log group of the function"
  value       = aws_cloudwatch_log_group.function.name
}

output "lambda_function_name" {
  description = "Function that writes the rows"
  value       = aws_lambda_function.metadata.function_name
}

output "filter_prefix" {
  description = "Beginning of the keys that are recorded"
  value       = var.filter_prefix
}

output "filter_suffix" {
  description = "End of the keys that are recorded"
  value       = var.filter_suffix
}

output "environment" {
  description = "Environment of this stack"
  value       = local.environment
}

output "account_id" {
  description = "AWS account of this stack"
  value       = local.account_id
}

output "aws_region" {
  description = "AWS region of this stack"
  value       = terraform_data.stack.input.region
}
